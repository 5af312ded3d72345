//! Normalisations, with the statistics that some return too.

use super::call::{Call, Types, tensor};
use crate::tensor::{DType, Dim, Shape, TensorType};

/// The result, and the running statistics of the versions that return them.
pub(super) fn batch_normalization(c: &Call) -> Types {
    vec![c.ty(0), c.ty(3), c.ty(4)]
}

/// The result, then mean and inverse deviation over the normalised axes.
pub(super) fn layer_normalization(c: &Call) -> Types {
    let statistic = statistic(c, c.int_or("axis", -1));
    vec![c.ty(0), statistic.clone(), statistic]
}

/// The result and the inverse deviation.
pub(super) fn simplified_layer_normalization(c: &Call) -> Types {
    vec![c.ty(0), statistic(c, c.int_or("axis", -1))]
}

/// The result, two statistics, and the sum of input and skip.
pub(super) fn skip_layer_normalization(c: &Call) -> Types {
    let statistic = statistic(c, -1);
    vec![c.ty(0), statistic.clone(), statistic, c.ty(0)]
}

fn statistic(c: &Call, axis: i64) -> Option<TensorType> {
    let dtype = c.dtype_attr("stash_type").unwrap_or(DType::F32);
    let shape = c.shape(0).and_then(|mut shape| {
        let axis = super::call::position(axis, shape.len())?;
        shape[axis..].iter_mut().for_each(|it| *it = Dim::Fixed(1));
        Some(shape)
    });
    Some(tensor(dtype, shape))
}

/// `com.microsoft.EmbedLayerNormalization`: `[batch, sequence, hidden]`, a mask index, the sum.
pub(super) fn embed_layer_normalization(c: &Call) -> Types {
    let shape: Option<Shape> = c.shape(0).map(|mut shape| {
        shape.push(c.dim(2, 1));
        shape
    });
    let result = c.dtype(2).map(|it| tensor(it, shape));
    vec![result.clone(), Some(TensorType::new(DType::I32, [c.dim(0, 0)])), result]
}
