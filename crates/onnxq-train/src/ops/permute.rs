//! Axes in another order.

use onnxq_ir::{NoMatch, no_match};

use super::{Lowered, reshape::positive};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

struct Transpose {
    /// The shape of the result, and how far apart its neighbours lie in the operand.
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Transpose {
    /// `(place in the result, place in the operand)`, place by place of the result.
    fn places(&self, mut of: impl FnMut(usize, usize)) {
        let [outer @ .., last] = &self.shape[..] else { return of(0, 0) };
        let stride = self.strides[outer.len()];
        let rows: usize = outer.iter().product();
        let (mut index, mut from) = (vec![0; outer.len()], 0);
        for row in 0..rows {
            for i in 0..*last {
                of(row * last + i, from + i * stride);
            }
            for axis in (0..outer.len()).rev() {
                index[axis] += 1;
                from += self.strides[axis];
                if index[axis] < outer[axis] {
                    break;
                }
                from -= self.strides[axis] * outer[axis];
                index[axis] = 0;
            }
        }
    }
}

impl<R: Real> Op<R> for Transpose {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (x, y) = (at.x(0), &mut *at.y);
        self.places(|to, from| y[to] = x[from]);
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        let Some(dx) = at.grad(0) else { return };
        if std::mem::take(&mut dx.fresh) {
            let values = &mut dx.values;
            self.places(|from, to| values[to] = dy[from]);
        } else {
            let values = &mut dx.values;
            self.places(|from, to| values[to] += dy[from]);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

pub(super) fn transpose<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let order = match site.model().ints_attr(site.id, "perm") {
        Some(list) => positive(list, own.len())?,
        None => (0..own.len()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..own.len()) {
        return Err(no_match!("its order of axes is {order:?}"));
    }
    let mut steps = vec![1; own.len()];
    for axis in (1..own.len()).rev() {
        steps[axis - 1] = steps[axis] * own[axis];
    }
    let shape: Vec<usize> = order.iter().map(|it| own[*it]).collect();
    let strides = order.iter().map(|it| steps[*it]).collect();
    Ok(Lowered::new(Transpose { shape: shape.clone(), strides }, vec![x], shape))
}
