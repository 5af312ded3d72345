//! One of two values, as a condition says that the host knows.

use onnxq_ir::{NoMatch, no_match};

use super::{
    Lowered,
    broadcast::{Stretch, common},
};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

struct Where([Stretch; 3]);

impl<R: Real> Op<R> for Where {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (condition, a, b) = (at.ints(0), at.x(1), at.x(2));
        let [of_condition, of_a, of_b] = &self.0;
        for (i, it) in at.y.iter_mut().enumerate() {
            let holds = condition[of_condition.place(i)] != 0;
            *it = if holds { a[of_a.place(i)] } else { b[of_b.place(i)] };
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (condition, dy) = (at.ints(0), at.dy);
        let [of_condition, of_a, of_b] = &self.0;
        let holds = |i: usize| condition[of_condition.place(i)] != 0;
        for (index, stretch, side) in [(1, of_a, true), (2, of_b, false)] {
            if let Some(gradient) = at.grad(index) {
                let part = |i: usize| if holds(i) == side { dy[i] } else { R::default() };
                stretch.add(gradient, dy.len(), part);
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0])
    }
}

pub(super) fn select<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    if !site.is_host(0) {
        return Err(no_match!("its condition is computed from weights"));
    }
    let inputs = [site.slot(0)?, site.slot(1)?, site.slot(2)?];
    let shapes = inputs.map(|it| site.shape(it));
    let shape = common(&common(&shapes[0], &shapes[1])?, &shapes[2])?;
    let stretches = shapes.map(|it| Stretch::new(&it, &shape));
    Ok(Lowered::new(Where(stretches), inputs.to_vec(), shape))
}
