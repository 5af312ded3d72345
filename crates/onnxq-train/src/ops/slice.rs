//! Parts of a value along axes.

use onnxq_ir::{NoMatch, no_match};

use super::{Lowered, reshape::positive};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op, SlotId},
};

/// The places of the operand that the result takes, in order.
struct Slice(Vec<u32>);

impl<R: Real> Op<R> for Slice {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let x = at.x(0);
        at.y.iter_mut().zip(&self.0).for_each(|(it, from)| *it = x[*from as usize]);
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        let Some(dx) = at.grad(0) else { return };
        let sums = dx.cleared();
        self.0.iter().zip(dy).for_each(|(to, d)| sums[*to as usize] += *d);
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

/// Along one axis: where it begins, how far it goes each time, how often.
#[derive(Clone, Copy)]
struct Range {
    start: i64,
    step: i64,
    count: usize,
}

fn take<R: Real>(site: &Site<'_, '_, R>, x: SlotId, ranges: Vec<Range>) -> Lowered<R> {
    let own = site.shape(x);
    let mut places = vec![0u32];
    for (range, size) in ranges.iter().zip(&own) {
        let along = |i: usize| (range.start + i as i64 * range.step) as u32;
        places = places
            .iter()
            .flat_map(|base| (0..range.count).map(move |i| base * *size as u32 + along(i)))
            .collect();
    }
    let shape = ranges.iter().map(|it| it.count).collect();
    Lowered::new(Slice(places), vec![x], shape)
}

fn whole(shape: &[usize]) -> Vec<Range> {
    shape.iter().map(|it| Range { start: 0, step: 1, count: *it }).collect()
}

pub(super) fn slice<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let (starts, ends) = match site.model().ints_attr(site.id, "starts") {
        Some(_) => return Err(no_match!("its limits are attributes, as before opset 10")),
        None => (site.ints(1)?, site.ints(2)?),
    };
    let axes = if site.has_input(3) { site.ints(3)? } else { (0..starts.len() as i64).collect() };
    let steps = if site.has_input(4) { site.ints(4)? } else { vec![1; starts.len()] };
    let mut ranges = whole(&own);
    for (index, axis) in positive(&axes, own.len())?.into_iter().enumerate() {
        let lists = [&starts, &ends, &steps].map(|it| it.get(index).copied());
        let [Some(start), Some(end), Some(step)] = lists else {
            return Err(no_match!("its limits are of different length"));
        };
        ranges[axis] = range([start, end, step], own[axis] as i64)?;
    }
    Ok(take(site, x, ranges))
}

fn range([start, end, step]: [i64; 3], size: i64) -> Result<Range, NoMatch> {
    let from_front = |it: i64| if it < 0 { it.saturating_add(size) } else { it };
    let (start, end) = (from_front(start), from_front(end));
    let (start, end) = match step {
        0 => return Err(no_match!("a step of 0")),
        1.. => (start.clamp(0, size), end.clamp(0, size)),
        _ => (start.clamp(-1, size - 1), end.clamp(-1, size - 1)),
    };
    let count = (end - start + step - step.signum()) / step;
    Ok(Range { start, step, count: count.max(0) as usize })
}

pub(super) fn split<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let own = site.shape(x);
    let axis = positive(&[site.int("axis", 0)], own.len())?[0];
    let count = site.node().outputs.len();
    let sizes: Vec<usize> = if let Some(list) = site.model().ints_attr(site.id, "split") {
        list.iter().map(|it| *it as usize).collect()
    } else if site.has_input(1) {
        site.ints(1)?.iter().map(|it| *it as usize).collect()
    } else {
        let each = own[axis].div_ceil(count.max(1));
        (0..count).map(|it| each.min(own[axis].saturating_sub(it * each))).collect()
    };
    let size = *sizes.get(site.output).ok_or_else(|| no_match!("it has too few sizes"))?;
    let start: usize = sizes[..site.output].iter().sum();
    if start + size > own[axis] {
        return Err(no_match!("the sizes {sizes:?} of an axis of {}", own[axis]));
    }
    let mut ranges = whole(&own);
    ranges[axis] = Range { start: start as i64, step: 1, count: size };
    Ok(take(site, x, ranges))
}
