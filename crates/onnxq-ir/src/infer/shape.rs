//! Operators that move elements without changing them: reshape, transpose, concat, slice, pad.

use super::{
    call::{Call, Types, position, tensor},
    create::shape_from,
    data::{Data, shape_range, slice_count},
    dims,
    expr::Expr,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn shape(c: &Call) -> Option<TensorType> {
    let len = c.rank(0).map_or(Dim::Unknown, |rank| shape_range(c, rank).len().into());
    Some(TensorType::new(DType::I64, [len]))
}

pub(super) fn size(_: &Call) -> Option<TensorType> {
    Some(tensor(DType::I64, Some(Shape::new())))
}

pub(super) fn reshape(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, reshaped(c)))
}

fn reshaped(c: &Call) -> Option<Shape> {
    // The first version had the shape as an attribute.
    let target: Vec<Option<Expr>> = match (c.ints_attr("shape"), c.data(1)) {
        (Some(it), _) if !c.has(1) => it.iter().map(|it| Some(Expr::from(*it))).collect(),
        (_, Some(it)) if it.items.len() <= 64 => it.items,
        (_, Some(_)) => return None,
        _ => return dims::of_rank(c.dim(1, 0).fixed()?),
    };
    Some(reshaped_to(c.shape(0), &target, c.flag("allowzero")))
}

fn reshaped_to(from: Option<Shape>, target: &[Option<Expr>], allow_zero: bool) -> Shape {
    let mut rest: Option<Vec<Dim>> = from.clone();
    let mut open = Vec::new();
    let mut shape = Shape::new();
    for (axis, item) in target.iter().enumerate() {
        let number = item.as_ref().and_then(Expr::constant);
        shape.push(match number {
            Some(0) if !allow_zero => {
                let dim = from.as_ref().and_then(|it| it.get(axis)).cloned();
                // Taken as it is: it need not be known to cancel out.
                if let Some(it) = rest.as_mut().and_then(|it| it.get_mut(axis)) {
                    *it = Dim::Fixed(1);
                }
                dim.unwrap_or(Dim::Unknown)
            }
            Some(-1) => Dim::Unknown,
            _ => dims::to_dim(item.clone()),
        });
        let copied = number == Some(0) && !allow_zero;
        if !copied && shape[axis] == Dim::Unknown {
            open.push(axis);
        }
    }
    if let ([axis], Some(rest)) = (&open[..], rest) {
        let known = target.iter().enumerate().filter(|(at, it)| {
            at != axis && (allow_zero || it.as_ref().and_then(Expr::constant) != Some(0))
        });
        let known: Vec<Dim> = known.map(|(at, _)| shape[at].clone()).collect();
        shape[*axis] = dims::div_exact(&dims::product(&rest), &dims::product(&known));
    }
    shape
}

pub(super) fn flatten(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| {
        let at = c.int_or("axis", 1);
        let at = if at < 0 { at.checked_add(shape.len() as i64)? } else { at };
        let (outer, inner) = shape.split_at_checked(usize::try_from(at).ok()?)?;
        Some(vec![dims::product(outer), dims::product(inner)])
    });
    Some(tensor(c.dtype(0)?, Some(shape.unwrap_or(vec![Dim::Unknown, Dim::Unknown]))))
}

pub(super) fn squeeze(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| {
        let gone: Vec<usize> = match c.axes(1)? {
            Some(axes) => positions(&axes, shape.len())?,
            // Without axes every 1 goes, and a symbol might be one.
            None if shape.iter().any(|it| it.fixed().is_none()) => return None,
            None => (0..shape.len()).filter(|it| shape[*it] == Dim::Fixed(1)).collect(),
        };
        let kept = shape.into_iter().enumerate().filter(|(at, _)| !gone.contains(at));
        Some(kept.map(|(_, it)| it).collect())
    });
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn unsqueeze(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| {
        let axes = c.axes(1)??;
        let rank = shape.len() + axes.len();
        let new = positions(&axes, rank)?;
        let mut old = shape.into_iter();
        let dim = |at| if new.contains(&at) { Some(Dim::Fixed(1)) } else { old.next() };
        (0..rank).map(dim).collect()
    });
    Some(tensor(c.dtype(0)?, shape))
}

fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let mut list: Vec<usize> = axes.iter().map(|it| position(*it, rank)).collect::<Option<_>>()?;
    list.sort_unstable();
    list.dedup();
    (list.len() == axes.len()).then_some(list)
}

pub(super) fn transpose(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| match c.ints_attr("perm") {
        None => Some(shape.into_iter().rev().collect()),
        Some(perm) => {
            positions(perm, shape.len()).filter(|it| it.len() == shape.len())?;
            perm.iter().map(|it| shape.get(usize::try_from(*it).ok()?).cloned()).collect()
        }
    });
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn concat(c: &Call) -> Option<TensorType> {
    let dtype = (0..c.inputs()).find_map(|it| c.dtype(it))?;
    let shapes = (0..c.inputs()).map(|it| c.shape(it)).collect::<Vec<_>>();
    Some(tensor(dtype, concat_shapes(shapes, c.int_or("axis", 1))))
}

/// Shapes that are joined along an axis; elsewhere they are the same, so any may tell.
pub(super) fn concat_shapes(shapes: Vec<Option<Shape>>, axis: i64) -> Option<Shape> {
    let rank = shapes.iter().flatten().next()?.len();
    let axis = position(axis, rank)?;
    let mut out = dims::of_rank(rank)?;
    let mut sum = Dim::Fixed(0);
    for shape in shapes {
        let shape = shape.filter(|it| it.len() == rank);
        sum = dims::add(&sum, shape.as_ref().map_or(&Dim::Unknown, |it| &it[axis]));
        for (out, dim) in out.iter_mut().zip(shape.into_iter().flatten()) {
            if *out == Dim::Unknown || out.fixed().is_none() && dim.fixed().is_some() {
                *out = dim;
            }
        }
    }
    out[axis] = sum;
    Some(out)
}

pub(super) fn split(c: &Call) -> Types {
    let Some(dtype) = c.dtype(0) else { return Vec::new() };
    let Some((shape, axis)) = c.shape(0).and_then(|it| Some((c.axis(0, it.len())?, it))).map(swap)
    else {
        return vec![Some(tensor(dtype, None)); c.outputs()];
    };
    let sizes = split_sizes(c, &shape[axis]);
    let part = |index: usize| {
        let mut shape = shape.clone();
        shape[axis] = sizes.get(index).cloned().unwrap_or(Dim::Unknown);
        Some(tensor(dtype, Some(shape)))
    };
    (0..c.outputs()).map(part).collect()
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

fn split_sizes(c: &Call, whole: &Dim) -> Vec<Dim> {
    if let Some(sizes) = c.ints_attr("split") {
        return sizes.iter().map(|it| dims::from_int(*it)).collect();
    }
    if c.has(1) {
        let items = c.data(1).map(|it| it.items).unwrap_or_default();
        return items.into_iter().map(dims::to_dim).collect();
    }
    let Some(count) = i64::try_from(c.outputs()).ok().filter(|it| *it > 0) else {
        return Vec::new();
    };
    // Equal parts; what is left over shortens the last.
    let part = dims::map(whole, |it| it.div_exact(&Expr::from(count)));
    if part != Dim::Unknown {
        return vec![part; c.outputs()];
    }
    let Some(whole) = whole.fixed() else { return Vec::new() };
    let part = whole.div_ceil(c.outputs());
    (0..c.outputs()).map(|it| Dim::Fixed(part.min(whole.saturating_sub(it * part)))).collect()
}

pub(super) fn slice(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(0)?;
    let Some(mut shape) = c.shape(0) else { return Some(tensor(dtype, None)) };
    let cut = || {
        let (starts, ends) = slice_bounds(c)?;
        let count = starts.items.len();
        let (axes, steps) = (slice_axes(c, count)?, slice_steps(c, count)?);
        let list = starts.items.into_iter().zip(ends.items).zip(axes.into_iter().zip(steps));
        Some(list.collect::<Vec<_>>())
    };
    // Without bounds nothing but the rank stays.
    let Some(cuts) = cut() else { return Some(tensor(dtype, known_cut(c, shape))) };
    for ((start, end), (axis, step)) in cuts {
        let Some(axis) = position(axis, shape.len()) else {
            return Some(tensor(dtype, dims::of_rank(shape.len())));
        };
        shape[axis] = sliced(&shape[axis], start, end, step);
    }
    Some(tensor(dtype, Some(shape)))
}

/// The shape if only the axes of a slice are known.
fn known_cut(c: &Call, mut shape: Shape) -> Option<Shape> {
    let Some(axes) = c.ints(3).and_then(|it| positions(&it, shape.len())) else {
        return dims::of_rank(shape.len());
    };
    axes.into_iter().for_each(|it| shape[it] = Dim::Unknown);
    Some(shape)
}

/// Starts and ends, equally many; attributes in old operator sets.
pub(super) fn slice_bounds(c: &Call) -> Option<(Data, Data)> {
    let read = |name: &str, index: usize| match c.ints_attr(name) {
        Some(it) if it.len() <= super::data::MAX_CONSTANT => Some(Data {
            shape: vec![it.len()],
            items: it.iter().map(|it| Some(Expr::from(*it))).collect(),
        }),
        _ => c.data(index),
    };
    let (starts, ends) = (read("starts", 1)?, read("ends", 2)?);
    (starts.items.len() == ends.items.len()).then_some((starts, ends))
}

pub(super) fn slice_axes(c: &Call, count: usize) -> Option<Vec<i64>> {
    let axes = c.axes(3)?.unwrap_or_else(|| (0..count as i64).collect());
    (axes.len() == count).then_some(axes)
}

pub(super) fn slice_steps(c: &Call, count: usize) -> Option<Vec<i64>> {
    let steps = if c.has(4) { c.ints(4)? } else { vec![1; count] };
    (steps.len() == count).then_some(steps)
}

fn sliced(dim: &Dim, start: Option<Expr>, end: Option<Expr>, step: i64) -> Dim {
    let (Some(start), Some(end)) = (start, end) else { return Dim::Unknown };
    if let (Dim::Fixed(len), Some(start), Some(end)) = (dim, start.constant(), end.constant()) {
        return slice_count(*len, start, end, step).map_or(Dim::Unknown, |it| dims::from_int(it.1));
    }
    dims::map(dim, |whole| match step {
        i64::MIN..0 => reversed(whole, &start, &end, step),
        _ => taken(whole, &start, &end)?.div_ceil(step),
    })
}

/// All elements from the last to the first; other backward slices are not known.
fn reversed(whole: &Expr, start: &Expr, end: &Expr, step: i64) -> Option<Expr> {
    let first = start.constant()?;
    let (from_last, to_first) = (first == -1 || first >= FAR, end.constant()? <= -FAR);
    if from_last && to_first { whole.div_ceil(step.checked_abs()?) } else { None }
}

/// Exporters write the greatest number of 32 or 64 bits for "to the end".
const FAR: i64 = i32::MAX as i64;

/// `min(end, whole) - min(start, whole)`.
fn taken(whole: &Expr, start: &Expr, end: &Expr) -> Option<Expr> {
    let to_end = end.constant().is_some_and(|it| it >= FAR) || end == whole;
    if to_end && let Some(last) = start.constant().filter(|it| *it < 0) {
        return whole.smaller(&Expr::from(last.checked_neg()?));
    }
    let start = from_front(whole, start)?;
    let wanted = if to_end { whole.clone() } else { from_front(whole, end)? };
    let end = wanted.smaller(whole)?;
    if start == Expr::default() {
        return Some(end);
    }
    let inside = end.sub(&start)?;
    if inside.at_least(0) {
        return Some(inside);
    }
    // Both are cut at the same place, so where they are in order this is not negative either.
    let in_order = to_end || wanted.sub(&start)?.at_least(0);
    if in_order { end.sub(&start.smaller(whole)?) } else { None }
}

/// A bound counted from the front; `None` if its sign depends on names.
fn from_front(whole: &Expr, at: &Expr) -> Option<Expr> {
    if at.at_least(0) {
        return Some(at.clone());
    }
    let back = at.constant()?.checked_neg()?;
    whole.sub(&whole.smaller(&Expr::from(back))?)
}

pub(super) fn pad(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(0)?;
    let Some(shape) = c.shape(0) else { return Some(tensor(dtype, None)) };
    let padded = padded(c, &shape).or_else(|| dims::of_rank(shape.len()));
    Some(tensor(dtype, padded))
}

fn padded(c: &Call, shape: &Shape) -> Option<Shape> {
    let pads: Vec<Option<Expr>> = match c.ints_attr("pads").or(c.ints_attr("paddings")) {
        Some(it) => it.iter().map(|it| Some(Expr::from(*it))).collect(),
        None => c.data(1)?.items,
    };
    let axes: Vec<usize> = match c.has(3) {
        true => positions_in_order(&c.ints(3)?, shape.len())?,
        false => (0..shape.len()).collect(),
    };
    if axes.len().checked_mul(2)? != pads.len() {
        return None;
    }
    let mut out = shape.clone();
    for (index, axis) in axes.iter().enumerate() {
        let both = pads[index].as_ref().zip(pads[index + axes.len()].as_ref());
        out[*axis] = dims::map(&out[*axis], |it| both.and_then(|(a, b)| it.add(a)?.add(b)));
    }
    Some(out)
}

fn positions_in_order(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|it| position(*it, rank)).collect()
}

pub(super) fn expand(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, dims::broadcast(&[c.shape(0), shape_from(c, 1)])))
}

pub(super) fn tile(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| match c.data(1) {
        Some(repeats) if repeats.items.len() == shape.len() => {
            let times = |(dim, by): (&Dim, &Option<Expr>)| {
                dims::map(dim, |it| by.as_ref().and_then(|by| it.mul(by)))
            };
            Some(shape.iter().zip(&repeats.items).map(times).collect())
        }
        _ => dims::of_rank(shape.len()),
    });
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn depth_to_space(c: &Call) -> Option<TensorType> {
    blocks(c, Expr::div_exact, Expr::mul)
}

pub(super) fn space_to_depth(c: &Call) -> Option<TensorType> {
    blocks(c, Expr::mul, Expr::div_exact)
}

/// `[n, c, h, w]` where squares of pixels become channels, or back.
fn blocks(
    c: &Call,
    channels: fn(&Expr, &Expr) -> Option<Expr>,
    side: fn(&Expr, &Expr) -> Option<Expr>,
) -> Option<TensorType> {
    let by = Expr::from(c.int_attr("blocksize")?);
    let square = by.mul(&by)?;
    let shape = c.shape(0)?;
    let [n, depth, h, w] = &shape[..] else { return Some(tensor(c.dtype(0)?, None)) };
    let depth = dims::map(depth, |it| channels(it, &square));
    let [h, w] = [h, w].map(|it| dims::map(it, |it| side(it, &by)));
    Some(TensorType::new(c.dtype(0)?, [n.clone(), depth, h, w]))
}
