//! Operators that work element by element: one type in, or several that broadcast.

use super::{
    call::{Call, Types, tensor},
    dims,
};
use crate::tensor::{DType, Shape, TensorType};

/// The type of the first input.
pub(super) fn same(c: &Call) -> Option<TensorType> {
    c.ty(0)
}

/// All inputs stretched to one shape, with the element type they share.
pub(super) fn broadcast(c: &Call) -> Option<TensorType> {
    let dtype = (0..c.inputs()).find_map(|it| c.dtype(it))?;
    Some(tensor(dtype, broadcast_shape(c, 0)))
}

/// As [`broadcast`], but the second input may have another element type.
pub(super) fn power(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, broadcast_shape(c, 0)))
}

/// Two inputs stretched to one shape; the result is a truth value.
pub(super) fn compare(c: &Call) -> Option<TensorType> {
    Some(tensor(DType::Bool, broadcast_shape(c, 0)))
}

/// A truth value for each element.
pub(super) fn test(c: &Call) -> Option<TensorType> {
    Some(tensor(DType::Bool, c.shape(0)))
}

pub(super) fn where_(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(1).or_else(|| c.dtype(2))?;
    Some(tensor(dtype, broadcast_shape(c, 0)))
}

pub(super) fn cast(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype_attr("to")?, c.shape(0)))
}

pub(super) fn cast_like(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(1)?, c.shape(0)))
}

/// The result and the mask of what was kept.
pub(super) fn dropout(c: &Call) -> Types {
    vec![c.ty(0), c.shape(0).map(|it| tensor(DType::Bool, Some(it)))]
}

/// The shape of the given inputs from `first` on, stretched.
fn broadcast_shape(c: &Call, first: usize) -> Option<Shape> {
    let given = (first..c.inputs()).filter(|it| c.has(*it));
    let shapes: Vec<Option<Shape>> = given.map(|it| c.shape(it)).collect();
    if shapes.is_empty() { None } else { dims::broadcast(&shapes) }
}
