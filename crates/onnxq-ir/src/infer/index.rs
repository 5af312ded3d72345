//! Operators that pick, order or count elements.

use super::{
    call::{Call, Types, position, tensor},
    dims,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn gather(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, gathered(c, c.int_or("axis", 0))))
}

/// The shape of the data with one axis replaced by the shape of the indices.
pub(super) fn gathered(c: &Call, axis: i64) -> Option<Shape> {
    let (data, at) = (c.shape(0)?, c.shape(1)?);
    let axis = position(axis, data.len())?;
    Some(data[..axis].iter().chain(&at).chain(&data[axis + 1..]).cloned().collect())
}

pub(super) fn gather_elements(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, c.shape(1)))
}

pub(super) fn gather_nd(c: &Call) -> Option<TensorType> {
    let shape = || {
        let (data, at) = (c.shape(0)?, c.shape(1)?);
        let (depth, outer) = at.split_last()?;
        let batch = usize::try_from(c.int_or("batch_dims", 0)).ok()?;
        let inner = data.get(batch.checked_add(depth.fixed()?)?..)?;
        Some(outer.iter().chain(inner).cloned().collect())
    };
    Some(tensor(c.dtype(0)?, shape()))
}

pub(super) fn top_k(c: &Call) -> Types {
    let shape = c.shape(0).map(|mut shape| {
        let count = match c.int_attr("k") {
            Some(it) => dims::from_int(it),
            None => dims::to_dim(c.scalar(1)),
        };
        if let Some(axis) = c.axis(-1, shape.len()) {
            shape[axis] = count;
        }
        shape
    });
    vec![c.dtype(0).map(|it| tensor(it, shape.clone())), Some(tensor(DType::I64, shape))]
}

pub(super) fn non_zero(c: &Call) -> Option<TensorType> {
    let rank = c.rank(0).map_or(Dim::Unknown, Dim::Fixed);
    Some(TensorType::new(DType::I64, [rank, Dim::Unknown]))
}

pub(super) fn one_hot(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|mut shape| {
        let axis = c.axis(-1, shape.len() + 1)?;
        shape.insert(axis, dims::to_dim(c.scalar(1)));
        Some(shape)
    });
    Some(tensor(c.dtype(2)?, shape))
}

pub(super) fn compress(c: &Call) -> Option<TensorType> {
    let shape = match c.attr("axis") {
        None => Some(vec![Dim::Unknown]),
        Some(_) => c.shape(0).and_then(|mut shape| {
            let axis = c.axis(0, shape.len())?;
            shape[axis] = Dim::Unknown;
            Some(shape)
        }),
    };
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn unique(c: &Call) -> Types {
    let list = || Some(TensorType::new(DType::I64, [Dim::Unknown]));
    vec![compress(c), list(), list(), list()]
}

pub(super) fn non_max_suppression(_: &Call) -> Option<TensorType> {
    Some(TensorType::new(DType::I64, [Dim::Unknown, Dim::Fixed(3)]))
}
