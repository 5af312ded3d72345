//! Rows of a table.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

/// `y[o, i, :] = x[o, index[i], :]`.
struct Gather {
    outer: usize,
    size: usize,
    inner: usize,
}

impl Gather {
    /// `(place in the result, place in the table)` of each run of `inner` elements.
    fn runs(&self, ints: &[i64], mut of: impl FnMut(usize, usize)) {
        for outer in 0..self.outer {
            for (i, index) in ints.iter().enumerate() {
                // An index outside is looked up as the nearest inside: it was checked for the first run.
                let index = if *index < 0 { index + self.size as i64 } else { *index };
                let index = index.clamp(0, self.size as i64 - 1) as usize;
                let y = (outer * ints.len() + i) * self.inner;
                of(y, (outer * self.size + index) * self.inner);
            }
        }
    }
}

impl<R: Real> Op<R> for Gather {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (x, ints, y) = (at.x(0), at.ints(1), &mut *at.y);
        self.runs(ints, |to, from| {
            y[to..to + self.inner].copy_from_slice(&x[from..from + self.inner]);
        });
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (ints, dy) = (at.ints(1), at.dy);
        let Some(dx) = at.grad(0) else { return };
        let sums = dx.cleared();
        self.runs(ints, |from, to| {
            let row = dy[from..from + self.inner].iter();
            sums[to..to + self.inner].iter_mut().zip(row).for_each(|(it, d)| *it += *d);
        });
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[1])
    }
}

pub(super) fn gather<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    if !site.is_host(1) {
        return Err(no_match!("its indices are computed from weights"));
    }
    let inputs = [site.slot(0)?, site.slot(1)?];
    let [x, index] = inputs.map(|it| site.shape(it));
    let axis = site.int("axis", 0);
    let axis = if axis < 0 { axis + x.len() as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|it| *it < x.len());
    let axis = axis.ok_or_else(|| no_match!("its axis is outside of {x:?}"))?;
    if x[axis] == 0 {
        return Err(no_match!("the table is empty"));
    }
    let (outer, inner) = (x[..axis].iter().product(), x[axis + 1..].iter().product());
    let shape = [&x[..axis], &index, &x[axis + 1..]].concat();
    Ok(Lowered::new(Gather { outer, size: x[axis], inner }, inputs.to_vec(), shape))
}
