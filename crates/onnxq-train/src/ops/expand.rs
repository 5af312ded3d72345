//! A value repeated along axes of size one.

use onnxq_ir::NoMatch;

use super::{
    Lowered,
    broadcast::{Stretch, common},
};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

struct Expand(Stretch);

impl<R: Real> Op<R> for Expand {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let x = at.x(0);
        for (i, it) in at.y.iter_mut().enumerate() {
            *it = x[self.0.place(i)];
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        if let Some(dx) = at.grad(0) {
            self.0.add(dx, dy.len(), |i| dy[i]);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

pub(super) fn expand<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let target = site.ints(1)?;
    let target: Vec<usize> = target.iter().map(|it| (*it).max(0) as usize).collect();
    let own = site.shape(x);
    let shape = common(&own, &target)?;
    Ok(Lowered::new(Expand(Stretch::new(&own, &shape)), vec![x], shape))
}
