//! Reductions over axes.

use super::call::{Call, position, tensor};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn reduce(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, reduced(c)))
}

fn reduced(c: &Call) -> Option<Shape> {
    let shape = c.shape(0)?;
    let keep = keeps(c)?;
    let Some(axes) = c.axes(1) else {
        // Which axes go is not known, but how many stay if they stay as 1.
        return if keep { super::dims::of_rank(shape.len()) } else { None };
    };
    let axes = match axes.filter(|it| !it.is_empty()) {
        Some(axes) => axes.iter().map(|it| position(*it, shape.len())).collect::<Option<_>>()?,
        None => match c.int_or("noop_with_empty_axes", 0) {
            0 => (0..shape.len()).collect::<Vec<_>>(),
            1 => return Some(shape),
            _ => return None,
        },
    };
    Some(without(shape, &axes, keep))
}

/// `None` for numbers that the standard gives no meaning.
fn keeps(c: &Call) -> Option<bool> {
    match c.int_or("keepdims", 1) {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn without(shape: Shape, axes: &[usize], keep: bool) -> Shape {
    let dims = shape.into_iter().enumerate();
    dims.filter_map(|(at, dim)| match axes.contains(&at) {
        false => Some(dim),
        true => keep.then_some(Dim::Fixed(1)),
    })
    .collect()
}

/// The positions of the greatest or smallest elements.
pub(super) fn arg(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|shape| {
        let axis = c.axis(0, shape.len())?;
        Some(without(shape, &[axis], keeps(c)?))
    });
    Some(tensor(DType::I64, shape))
}
