//! Quantized forms: `QuantizeLinear`, `DequantizeLinear` and products of quantized matrices.

use super::{
    EvalError,
    binary::combine,
    call::Call,
    index::{around, broadcast_to, position},
    matmul::{Matrix, product},
    table::Outputs,
    values::{int_tensor, ints, is_int, only, range, real_tensor},
};
use crate::tensor::{DType, Tensor};

/// In `f32`, rounded half to even and saturated.
pub(super) fn quantize_linear(call: &Call) -> Outputs {
    let (input, scale) = (call.input(0)?, call.input(1)?);
    let zero = call.optional(2);
    let dtype = match (zero, call.dtype("output_dtype")?) {
        (Some(it), _) => it.dtype,
        (None, Some(it)) => it,
        (None, None) => DType::U8,
    };
    let at = parameters(call, input, scale, zero)?;
    let zero_points = zero.map(ints).transpose()?;
    let scales = scale.to_f32()?;
    let values = floats(input)?;
    let quantized = values.iter().zip(at).map(|(it, at)| {
        let zero = zero_points.as_ref().map_or(0, |it| it[at]);
        saturate(it / scales[at], zero, dtype)
    });
    Ok(vec![int_tensor(dtype, &input.shape, quantized)?])
}

pub(super) fn dequantize_linear(call: &Call) -> Outputs {
    let (input, scale) = (call.input(0)?, call.input(1)?);
    let zero = call.optional(2);
    let dtype = call.dtype("output_dtype")?.unwrap_or(scale.dtype);
    let at = parameters(call, input, scale, zero)?;
    let zero_points = zero.map(ints).transpose()?;
    let scales = scale.to_f32()?;
    let quantized = ints(input)?;
    let values = quantized.into_iter().zip(at).map(|(it, at)| {
        let zero = zero_points.as_ref().map_or(0, |it| it[at]);
        f64::from((it - zero) as f32 * scales[at])
    });
    Ok(vec![real_tensor(dtype, &input.shape, values)?])
}

/// Outputs: quantized values, scale and zero point of the whole tensor.
pub(super) fn dynamic_quantize_linear(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let it = Dynamic::of(&floats(input)?);
    let quantized = it.quantized.iter().map(|it| i128::from(*it));
    Ok(vec![
        int_tensor(DType::U8, &input.shape, quantized)?,
        Tensor::scalar(it.scale),
        int_tensor(DType::U8, &[], [i128::from(it.zero)])?,
    ])
}

/// Inputs: a, b and their zero points, of rows of a and columns of b.
pub(super) fn mat_mul_integer(call: &Call) -> Outputs {
    let result = integer_product(call, call.optional(2), call.optional(3))?;
    let values = result.values.into_iter().map(i128::from);
    Ok(vec![int_tensor(DType::I32, &result.shape, values)?])
}

/// Inputs: a, its scale and zero, b, its scale and zero, those of y.
pub(super) fn qlinear_mat_mul(call: &Call) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(3)?);
    let left = Matrix { shape: a.shape.clone(), values: row_zeros(a, call.optional(2))? };
    let right = Matrix { shape: b.shape.clone(), values: column_zeros(b, call.optional(5))? };
    let result = product(left, right)?;
    let (a_scale, y_scale) = (call.input(1)?.to_f32()?, call.input(6)?.to_f32()?);
    let (a_scale, y_scale) = (only(call.input(1)?, a_scale)?, only(call.input(6)?, y_scale)?);
    let columns = result.shape.last().copied().unwrap_or(1);
    let factors = call.input(4)?.to_f32()?.into_iter().map(|it| a_scale * it / y_scale);
    let factors = Scales::new(call, factors.collect(), columns)?;
    let zero = call.input(7)?;
    let shift = only(zero, ints(zero)?)?;
    let values = result
        .values
        .iter()
        .enumerate()
        .map(|(i, it)| saturate(*it as f32 * factors.at(i % columns), shift, zero.dtype));
    Ok(vec![int_tensor(zero.dtype, &result.shape, values)?])
}

/// `com.microsoft.MatMulIntegerToFloat`: a, b, their scales, their zero points, bias.
pub(super) fn mat_mul_integer_to_float(call: &Call) -> Outputs {
    let result = integer_product(call, call.optional(4), call.optional(5))?;
    let a_scale = only(call.input(2)?, call.input(2)?.to_f32()?)?;
    scaled(call, result, a_scale, call.input(3)?, call.optional(6))
}

/// `com.microsoft.DynamicQuantizeMatMul`: a, b, scale of b, zero of b, bias.
pub(super) fn dynamic_quantize_mat_mul(call: &Call) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let a_quantized = Dynamic::of(&floats(a)?);
    let zero = i64::from(a_quantized.zero);
    let values = a_quantized.quantized.iter().map(|it| i64::from(*it) - zero);
    let left = Matrix { shape: a.shape.clone(), values: values.collect() };
    let right = Matrix { shape: b.shape.clone(), values: column_zeros(b, call.optional(3))? };
    let result = product(left, right)?;
    scaled(call, result, a_quantized.scale, call.input(2)?, call.optional(4))
}

/// A sum of products times the scales of both sides.
fn scaled(
    call: &Call,
    sums: Matrix<i64>,
    a_scale: f32,
    b_scale: &Tensor,
    bias: Option<&Tensor>,
) -> Outputs {
    let columns = sums.shape.last().copied().unwrap_or(1).max(1);
    let factors = b_scale.to_f32()?.into_iter().map(|it| a_scale * it).collect();
    let factors = Scales::new(call, factors, columns)?;
    let value = |(i, it): (usize, &i64)| f64::from(*it as f32 * factors.at(i % columns));
    let values = sums.values.iter().enumerate().map(value);
    let result = real_tensor(b_scale.dtype, &sums.shape, values)?;
    Ok(vec![match bias {
        Some(bias) => combine(&result, bias, |a, b| a + b, |_, _| None)?,
        None => result,
    }])
}

fn integer_product(
    call: &Call,
    a_zero: Option<&Tensor>,
    b_zero: Option<&Tensor>,
) -> Result<Matrix<i64>, EvalError> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let left = Matrix { shape: a.shape.clone(), values: row_zeros(a, a_zero)? };
    let right = Matrix { shape: b.shape.clone(), values: column_zeros(b, b_zero)? };
    product(left, right)
}

/// A quantized value of `dtype`: rounded half to even, moved by the zero point, saturated.
pub(super) fn saturate(value: f32, zero: i64, dtype: DType) -> i128 {
    let (low, high) = range(dtype).unwrap_or((0, 0));
    (value.round_ties_even() as i128).saturating_add(zero.into()).clamp(low, high)
}

/// Integers minus their zero point: one for all or one for each entry along `axis`.
pub(super) fn zero_points(
    tensor: &Tensor,
    zero: Option<&Tensor>,
    axis: usize,
) -> Result<Vec<i64>, EvalError> {
    let mut shape = vec![1; tensor.shape.len()];
    match zero {
        Some(zero) if zero.numel() > 1 && zero.shape.len() == 1 && axis < shape.len() => {
            shape[axis] = zero.numel();
            minus(tensor, Some(&zero.reshaped(shape)))
        }
        _ => minus(tensor, zero),
    }
}

/// One scale for each channel, or one for all.
pub(super) struct Scales(Vec<f32>);

impl Scales {
    pub(super) fn new(call: &Call, scales: Vec<f32>, channels: usize) -> Result<Scales, EvalError> {
        if scales.len() == 1 || scales.len() == channels {
            return Ok(Scales(scales));
        }
        Err(call.shape_error("scales differ from the channels"))
    }

    pub(super) fn at(&self, channel: usize) -> f32 {
        if self.0.len() == 1 { self.0[0] } else { self.0[channel] }
    }
}

fn row_zeros(a: &Tensor, zero: Option<&Tensor>) -> Result<Vec<i64>, EvalError> {
    zero_points(a, zero, a.shape.len().saturating_sub(2))
}

fn column_zeros(b: &Tensor, zero: Option<&Tensor>) -> Result<Vec<i64>, EvalError> {
    zero_points(b, zero, b.shape.len().saturating_sub(1))
}

fn minus(tensor: &Tensor, zero: Option<&Tensor>) -> Result<Vec<i64>, EvalError> {
    let mut values = ints(tensor)?;
    let Some(zero) = zero else { return Ok(values) };
    let zero_points = ints(zero)?;
    if let [zero] = zero_points[..] {
        values.iter_mut().for_each(|it| *it = it.wrapping_sub(zero));
        return Ok(values);
    }
    let at = broadcast_to(&zero.shape, &tensor.shape)?;
    values.iter_mut().zip(at).for_each(|(it, at)| *it = it.wrapping_sub(zero_points[at]));
    Ok(values)
}

/// A tensor quantized to `uint8` by its own range, as ONNX Runtime does it.
struct Dynamic {
    quantized: Vec<u8>,
    scale: f32,
    zero: u8,
}

impl Dynamic {
    fn of(values: &[f32]) -> Dynamic {
        // Zero must stay exact, so it lies in the range.
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
        let zero = (-low / scale).clamp(0.0, 255.0).round_ties_even() as u8;
        let integer = |it: &f32| saturate(it / scale, zero.into(), DType::U8) as u8;
        Dynamic { quantized: values.iter().map(integer).collect(), scale, zero }
    }
}

/// Floats of any width, or integers, as `f32`.
fn floats(tensor: &Tensor) -> Result<Vec<f32>, EvalError> {
    if is_int(tensor.dtype) {
        return Ok(ints(tensor)?.into_iter().map(|it| it as f32).collect());
    }
    Ok(tensor.to_f32()?)
}

/// For each element the index of its scale: one for all, one along an axis, or one per block.
fn parameters(
    call: &Call,
    input: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
) -> Result<Box<dyn Iterator<Item = usize>>, EvalError> {
    if zero.is_some_and(|it| it.numel() != scale.numel()) {
        return Err(call.shape_error("scales and zero points differ"));
    }
    let block = call.int("block_size", 0)?;
    if block == 0 && scale.numel() == 1 {
        return Ok(Box::new(std::iter::repeat_n(0, input.numel())));
    }
    let axis = position(call.int("axis", 1)?, input.shape.len())?;
    let (_, size, inner) = around(&input.shape, axis);
    if block == 0 {
        if scale.shape != [size] {
            return Err(call.shape_error("scales differ from the axis"));
        }
        return Ok(Box::new((0..input.numel()).map(move |it| it / inner % size)));
    }
    let block = usize::try_from(block).map_err(|_| call.shape_error("block_size"))?;
    let mut expected = input.shape.clone();
    expected[axis] = size.div_ceil(block);
    if scale.shape != expected {
        return Err(call.shape_error("scales differ from the blocks"));
    }
    Ok(Box::new(blocks(&input.shape, axis, block)))
}

/// Offsets in a tensor with an entry for each `block` along `axis`.
pub(super) fn blocks(
    shape: &[usize],
    axis: usize,
    block: usize,
) -> impl Iterator<Item = usize> + use<> {
    let (_, size, inner) = around(shape, axis);
    let groups = size.div_ceil(block);
    let count: usize = shape.iter().product();
    (0..count).map(move |it| {
        let (row, column) = (it / inner, it % inner);
        (row / size * groups + row % size / block) * inner + column
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn ties_round_to_even_and_codes_saturate() {
        let x = f32s(&[6], &[0.5, 1.5, 2.5, -1.0, 300.0, f32::INFINITY]);
        let (scale, zero) = (Tensor::scalar(1.0), raw(DType::U8, &[], &[1]));
        let quantized = eval("QuantizeLinear", &[&x, &scale, &zero], Attrs::default()).unwrap();
        assert_eq!(quantized.to_i64().unwrap(), [1, 3, 3, 0, 255, 255]);
    }

    #[test]
    fn blocks_have_scales_of_their_own() {
        let quantized = raw(DType::I4, &[3, 2], &[0x21, 0xf3, 0x54]);
        let scales = f32s(&[2, 2], &[1., 10., 100., 1000.]);
        let attrs = Attrs::default().with("axis", 0i64).with("block_size", 2i64);
        let values = eval("DequantizeLinear", &[&quantized, &scales], attrs).unwrap();
        close(&values, &[1., 20., 3., -10., 400., 5000.]);
        let axis = Attrs::default().with("axis", 1i64);
        let scales = f32s(&[2], &[1., 10.]);
        let zero_points = raw(DType::I4, &[2], &[0x10]);
        let values = eval("DequantizeLinear", &[&quantized, &scales, &zero_points], axis).unwrap();
        close(&values, &[1., 10., 3., -20., 4., 40.]);
        assert!(
            eval("DequantizeLinear", &[&quantized, &f32s(&[3], &[1.; 3])], Attrs::default())
                .is_err()
        );
    }

    /// Computed by ONNX Runtime 1.31.1; the range of the last holds zero alone.
    #[test]
    fn dynamic_ranges_hold_zero() {
        for (values, quantized, scale, zero) in [
            ([0.0, 2.0, -3.0], [153, 255, 0], 0.019607844, 153),
            ([1.0, 2.0, 4.0], [64, 127, 255], 0.015686275, 0),
            ([0.0, 0.0, 0.0], [0, 0, 0], 1.0, 0),
        ] {
            let x = f32s(&[3], &values);
            let outputs = eval_at(13, "DynamicQuantizeLinear", &[Some(x)], Attrs::default(), 3);
            let outputs = outputs.unwrap();
            assert_eq!(outputs[0].to_i64().unwrap(), quantized);
            assert_eq!(outputs[1].to_f32().unwrap(), [scale]);
            assert_eq!(outputs[2].to_i64().unwrap(), [zero]);
        }
    }

    proptest! {
        #[test]
        fn dequantizing_undoes_quantizing_within_half_a_step(
            values in proptest::collection::vec(-4f32..4.0, 8),
        ) {
            let x = f32s(&[8], &values);
            let outputs = eval_at(13, "DynamicQuantizeLinear", &[Some(x)], Attrs::default(), 3);
            let inputs: Vec<Option<Tensor>> = outputs.unwrap().into_iter().map(Some).collect();
            let back = eval_at(13, "DequantizeLinear", &inputs, Attrs::default(), 1).unwrap();
            let scale = inputs[1].as_ref().unwrap().to_f32().unwrap()[0];
            for (value, back) in values.iter().zip(back[0].to_f32().unwrap()) {
                prop_assert!((value - back).abs() <= scale * 0.51);
            }
        }
    }

    #[test]
    fn integer_products_subtract_zero_points() {
        let a = raw(DType::U8, &[1, 2], &[3, 4]);
        let b = raw(DType::I8, &[2, 2], &[1, 2, 0xff, 4]);
        let (a_zero, b_zero) = (raw(DType::U8, &[], &[1]), raw(DType::I8, &[2], &[0, 1]));
        let inputs = [&a, &b, &a_zero, &b_zero];
        let sums = eval("MatMulInteger", &inputs, Attrs::default()).unwrap();
        assert_eq!(sums.to_i64().unwrap(), [-1, 11]);
        let (a_scale, b_scale) = (Tensor::scalar(0.5), f32s(&[2], &[2., 4.]));
        let inputs = [&a, &b, &a_scale, &b_scale, &a_zero, &b_zero, &f32s(&[2], &[10., 20.])];
        let op = "com.microsoft.MatMulIntegerToFloat";
        close(&eval(op, &inputs, Attrs::default()).unwrap(), &[9., 42.]);
    }
}
