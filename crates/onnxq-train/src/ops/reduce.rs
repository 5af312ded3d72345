//! Sums, means and maxima along axes.

use onnxq_ir::NoMatch;

use super::{Lowered, broadcast::Stretch, reshape::positive};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

/// `y = scale · Σ x`; the stretch says where a place of the operand goes.
struct Sum {
    stretch: Stretch,
    scale: f64,
}

impl<R: Real> Op<R> for Sum {
    fn forward(&self, at: &mut Forward<'_, R>) {
        at.y.fill(R::default());
        for (i, it) in at.x(0).iter().enumerate() {
            at.y[self.stretch.place(i)] += *it;
        }
        let scale = R::of(self.scale);
        at.y.iter_mut().for_each(|it| *it *= scale);
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (dy, scale) = (at.dy, R::of(self.scale));
        if let Some(dx) = at.grad(0) {
            dx.add(|i| dy[self.stretch.place(i)] * scale);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// The largest; its gradient goes to the first that is as large.
struct Max(Stretch);

impl<R: Real> Op<R> for Max {
    fn forward(&self, at: &mut Forward<'_, R>) {
        at.y.fill(R::of(f64::NEG_INFINITY));
        for (i, it) in at.x(0).iter().enumerate() {
            let y = &mut at.y[self.0.place(i)];
            *y = y.max(*it);
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (x, y, dy) = (at.x(0), at.y(), at.dy);
        let Some(dx) = at.grad(0) else { return };
        let sums = dx.cleared();
        let mut given = vec![false; y.len()];
        for (i, it) in x.iter().enumerate() {
            let place = self.0.place(i);
            if *it == y[place] && !std::mem::replace(&mut given[place], true) {
                sums[i] += dy[place];
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps { output: true, ..Keeps::inputs(&[0]) }
    }
}

fn reduce<R: Real>(
    site: &mut Site<'_, '_, R>,
    op: fn(Stretch, usize) -> Box<dyn Op<R>>,
) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let axes = site.axes(1)?.filter(|it| !it.is_empty());
    if axes.is_none() && site.int("noop_with_empty_axes", 0) != 0 {
        return super::reshape::identity(site);
    }
    let axes = match axes {
        Some(list) => positive(&list, own.len())?,
        None => (0..own.len()).collect(),
    };
    let reduced = |axis: usize| axes.contains(&axis);
    let kept: Vec<usize> =
        own.iter().enumerate().map(|(axis, it)| if reduced(axis) { 1 } else { *it }).collect();
    let count = axes.iter().map(|it| own[*it]).product();
    let op = op(Stretch::new(&kept, &own), count);
    let shape = match site.int("keepdims", 1) != 0 {
        true => kept,
        false => (0..own.len()).filter(|it| !reduced(*it)).map(|it| own[it]).collect(),
    };
    Ok(Lowered { op, inputs: vec![x], shape })
}

pub(super) fn sum<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    reduce(site, |stretch, _| Box::new(Sum { stretch, scale: 1.0 }))
}

pub(super) fn mean<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    reduce(site, |stretch, count| Box::new(Sum { stretch, scale: 1.0 / count as f64 }))
}

pub(super) fn max<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    reduce(site, |stretch, _| Box::new(Max(stretch)))
}
