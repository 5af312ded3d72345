//! The same elements under another shape.

use onnxq_ir::{NoMatch, no_match, tensor::DType};

use super::Lowered;
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op, SlotId},
};

struct Copy;

impl<R: Real> Op<R> for Copy {
    fn forward(&self, at: &mut Forward<'_, R>) {
        at.y.copy_from_slice(at.x(0));
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        if let Some(dx) = at.grad(0) {
            dx.add(|i| dy[i]);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

fn copy<R: Real>(
    site: &Site<'_, '_, R>,
    x: SlotId,
    shape: Vec<usize>,
) -> Result<Lowered<R>, NoMatch> {
    let own = site.shape(x);
    if own.iter().product::<usize>() != shape.iter().product::<usize>() {
        return Err(no_match!("{own:?} has other elements than {shape:?}"));
    }
    Ok(Lowered::new(Copy, vec![x], shape))
}

pub(super) fn identity<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    if site.output > 0 {
        return Err(no_match!("its mask is used"));
    }
    let x = site.slot(0)?;
    let shape = site.shape(x);
    copy(site, x, shape)
}

/// Between float types: the numbers stay.
pub(super) fn cast<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let to = DType::from_number(site.int("to", 0) as i32);
    if to != Some(DType::F32) {
        return Err(no_match!("it casts to {to:?}, and training computes in float32"));
    }
    identity(site)
}

pub(super) fn flatten<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let axis = site.int("axis", 1);
    let axis = if axis < 0 { axis + own.len() as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|it| *it <= own.len());
    let axis = axis.ok_or_else(|| no_match!("its axis is outside of {own:?}"))?;
    let shape = vec![own[..axis].iter().product(), own[axis..].iter().product()];
    copy(site, x, shape)
}

pub(super) fn reshape<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let (own, target) = (site.shape(x), site.ints(1)?);
    let keeps_zero = site.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(target.len());
    for (index, size) in target.iter().enumerate() {
        shape.push(match size {
            0 if !keeps_zero => {
                *own.get(index).ok_or_else(|| no_match!("axis {index} is not there"))?
            }
            -1 => 1,
            it => usize::try_from(*it).map_err(|_| no_match!("a size of {it}"))?,
        });
    }
    if let Some(open) = target.iter().position(|it| *it == -1) {
        let (all, others): (usize, usize) = (own.iter().product(), shape.iter().product());
        shape[open] = all.checked_div(others).unwrap_or(0);
    }
    copy(site, x, shape)
}

pub(super) fn squeeze<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let axes = site.axes(1)?.map(|list| positive(&list, own.len())).transpose()?;
    let goes = |(axis, size): &(usize, &usize)| match &axes {
        Some(list) => list.contains(axis),
        None => **size == 1,
    };
    let shape = own.iter().enumerate().filter(|it| !goes(it)).map(|it| *it.1).collect();
    copy(site, x, shape)
}

pub(super) fn unsqueeze<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let axes = site.axes(1)?.ok_or_else(|| no_match!("it has no axes"))?;
    let rank = own.len() + axes.len();
    let axes = positive(&axes, rank)?;
    let mut sizes = own.into_iter();
    let at = |axis| if axes.contains(&axis) { 1 } else { sizes.next().unwrap_or(1) };
    let shape = (0..rank).map(at).collect();
    copy(site, x, shape)
}

/// Axes counted from the front.
pub(super) fn positive(axes: &[i64], rank: usize) -> Result<Vec<usize>, NoMatch> {
    let of = |axis: &i64| {
        let front = if *axis < 0 { axis + rank as i64 } else { *axis };
        let known = usize::try_from(front).ok().filter(|it| *it < rank);
        known.ok_or_else(|| no_match!("axis {axis} of {rank}"))
    };
    axes.iter().map(of).collect()
}
