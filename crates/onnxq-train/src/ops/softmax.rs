//! Softmax along an axis.

use onnxq_ir::NoMatch;

use super::{Lowered, reshape::positive};
use crate::{
    lower::Site,
    real::{Real, vectorized},
    tape::{Backward, Forward, Keeps, Op},
};

/// Along an axis of `size`, whose neighbours lie `inner` apart.
struct Softmax {
    size: usize,
    inner: usize,
}

impl Softmax {
    fn lines(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let (size, inner) = (self.size, self.inner);
        (0..len / (size * inner).max(1))
            .flat_map(move |o| (0..inner).map(move |i| o * size * inner + i))
    }
}

impl<R: Real> Op<R> for Softmax {
    fn forward(&self, at: &mut Forward<'_, R>) {
        at.y.copy_from_slice(at.x(0));
        if self.inner == 1 {
            at.y.chunks_exact_mut(self.size.max(1)).for_each(|row| softmax(row));
            return;
        }
        let mut line = vec![R::default(); self.size];
        for start in self.lines(at.y.len()) {
            (0..self.size).for_each(|i| line[i] = at.y[start + i * self.inner]);
            softmax(&mut line);
            (0..self.size).for_each(|i| at.y[start + i * self.inner] = line[i]);
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (y, dy) = (at.y(), at.dy);
        let Some(dx) = at.grad(0) else { return };
        let sums = dx.cleared();
        for start in self.lines(y.len()) {
            let places = || (0..self.size).map(|i| start + i * self.inner);
            let along: R = places().map(|i| y[i] * dy[i]).sum();
            places().for_each(|i| sums[i] += y[i] * (dy[i] - along));
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::OUTPUT
    }
}

/// A row of numbers becomes weights that sum to one. Where all are −∞, zeros.
pub(crate) fn softmax<R: Real>(row: &mut [R]) {
    vectorized(|| {
        let mut most = R::of(f64::NEG_INFINITY);
        for it in row.iter() {
            most = most.max(*it);
        }
        if most == R::of(f64::NEG_INFINITY) {
            return row.fill(R::default());
        }
        let mut lanes = [R::default(); 8];
        let mut chunks = row.chunks_exact_mut(8);
        for chunk in &mut chunks {
            for (lane, it) in lanes.iter_mut().zip(chunk) {
                *it = (*it - most).exp();
                *lane += *it;
            }
        }
        let mut sum = lanes.into_iter().sum::<R>();
        for it in chunks.into_remainder() {
            *it = (*it - most).exp();
            sum += *it;
        }
        let inverse = R::of(1.0) / sum;
        row.iter_mut().for_each(|it| *it *= inverse);
    });
}

pub(super) fn along_axis<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let shape = site.shape(x);
    let is_old = site.model().opset("") < 13;
    let axis = positive(&[site.int("axis", if is_old { 1 } else { -1 })], shape.len())?[0];
    // Before opset 13 all axes from this one on were one.
    let end = if is_old { shape.len() } else { axis + 1 };
    let op =
        Softmax { size: shape[axis..end].iter().product(), inner: shape[end..].iter().product() };
    Ok(Lowered::new(op, vec![x], shape))
}
