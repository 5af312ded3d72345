//! Quantized operators: types from zero points and scales, shapes from their float relatives.

use super::{
    call::{Call, Types, tensor},
    conv, dims, index, matmul, shape,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn quantize_linear(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype_attr("output_dtype").or_else(|| c.dtype(2)).unwrap_or(DType::U8);
    Some(tensor(dtype, c.shape(0)))
}

pub(super) fn dequantize_linear(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype_attr("output_dtype").or_else(|| c.dtype(1))?;
    Some(tensor(dtype, c.shape(0)))
}

/// Quantized values, scale and zero point.
pub(super) fn dynamic_quantize_linear(c: &Call) -> Types {
    let scalar = |dtype| Some(tensor(dtype, Some(Shape::new())));
    vec![Some(tensor(DType::U8, c.shape(0))), scalar(DType::F32), scalar(DType::U8)]
}

/// The element type is that of the zero point of the result, or of the first operand.
fn like_zero_point(c: &Call, zero_point: usize, operand: usize) -> Option<DType> {
    c.dtype(zero_point).or_else(|| c.dtype(operand))
}

pub(super) fn qlinear_matmul(c: &Call) -> Option<TensorType> {
    Some(tensor(like_zero_point(c, 7, 0)?, matmul::product(c.shape(0), c.shape(3))))
}

pub(super) fn qlinear_conv(c: &Call) -> Option<TensorType> {
    // The channels-last variant has its axes elsewhere.
    let shape = if c.flag("channels_last") { None } else { conv::conv_shape(c, 0, 3) };
    Some(tensor(like_zero_point(c, 7, 0)?, shape))
}

/// `QLinearAdd`, `QLinearMul`: operands at 0 and 3, each with scale and zero point.
pub(super) fn qlinear_binary(c: &Call) -> Option<TensorType> {
    let shape = dims::broadcast(&[c.shape(0), c.shape(3)]);
    Some(tensor(like_zero_point(c, 7, 0)?, shape))
}

pub(super) fn qlinear_where(c: &Call) -> Option<TensorType> {
    let shape = dims::broadcast(&[c.shape(0), c.shape(1), c.shape(4)]);
    Some(tensor(c.dtype(1)?, shape))
}

/// Scale and zero point of the result, then three inputs for each part.
pub(super) fn qlinear_concat(c: &Call) -> Option<TensorType> {
    let parts = (2..c.inputs()).step_by(3).map(|it| c.shape(it)).collect();
    let dtype = like_zero_point(c, 1, 2)?;
    Some(tensor(dtype, shape::concat_shapes(parts, c.int_attr("axis")?)))
}

pub(super) fn qlinear_average_pool(c: &Call) -> Option<TensorType> {
    let shape = if c.flag("channels_last") { None } else { conv::pool_shape(c) };
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn qlinear_global_average_pool(c: &Call) -> Option<TensorType> {
    let shape = if c.flag("channels_last") { None } else { conv::global_pool_shape(c) };
    Some(tensor(c.dtype(0)?, shape))
}

/// `com.microsoft.QGemm`: float where the scale of the result is left out.
pub(super) fn qgemm(c: &Call) -> Option<TensorType> {
    let dtype = if c.has(7) { like_zero_point(c, 8, 0)? } else { c.dtype(1)? };
    Some(TensorType::new(dtype, matmul::gemm_dims(c, 0, 3)))
}

/// Rows of a quantized table, dequantized. Bytes may hold several quantized values along the last
/// axis.
pub(super) fn gather_block_quantized(c: &Call) -> Option<TensorType> {
    let quantized = match (c.dtype(0), c.int_or("bits", 4)) {
        (Some(DType::U8), 2) => 4,
        (Some(DType::U8), 4) => 2,
        _ => 1,
    };
    let shape = index::gathered(c, c.int_or("gather_axis", 0)).map(|mut shape| {
        if let Some(last) = shape.last_mut() {
            *last = dims::mul(last, &Dim::Fixed(quantized));
        }
        shape
    });
    Some(tensor(c.dtype(2)?, shape))
}
