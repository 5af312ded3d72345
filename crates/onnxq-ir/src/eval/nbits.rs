//! `com.microsoft.MatMulNBits` and `GatherBlockQuantized`: weights in blocks of narrow integers.

use super::{
    EvalError,
    binary::combine,
    call::{Call, wrong},
    gather::take,
    index::elements,
    matmul::{Matrix, product},
    quant::blocks,
    table::Outputs,
    values::{ints, quantized, real_tensor, reals},
};
use crate::tensor::{DType, Tensor, unpack_bits};

/// Inputs: a, quantized values, scales, zero points, group indices, bias. Computed with the weight
/// in `f32`, whatever the accuracy level.
pub(super) fn mat_mul_nbits(call: &Call) -> Outputs {
    let a = call.input(0)?;
    let (k, n) = (size(call, "K", 0)?, size(call, "N", 0)?);
    let (bits, block) = (bits(call)?, size(call, "block_size", 0)?);
    elements(&[k, n])?;
    if call.optional(4).is_some() {
        return Err(call.unsupported("with group indices"));
    }
    if block == 0 || !(block * bits as usize).is_multiple_of(8) {
        return Err(wrong("block_size", "is not a block of whole bytes"));
    }
    let groups = k.div_ceil(block);
    let (weight, scale) = (call.input(1)?, call.input(2)?);
    let bytes = n * groups * block * bits as usize / 8;
    if weight.dtype != DType::U8 || weight.numel() != bytes || scale.numel() != n * groups {
        return Err(call.shape_error("quantized values or scales differ from K and N"));
    }
    let quantized = unpack_bits(&weight.bytes()?, bits, n * groups * block);
    let zero_points = zero_points(call, n, groups, bits)?;
    let scales = scale.to_f32()?;
    // Transposed on the way: a row of quantized values is a column of the factor.
    let mut values = vec![0.0; k * n];
    for row in 0..n {
        for column in 0..k {
            let group = row * groups + column / block;
            let integer = f32::from(quantized[row * groups * block + column]);
            values[column * n + row] = f64::from((integer - zero_points[group]) * scales[group]);
        }
    }
    let left = Matrix { shape: a.shape.clone(), values: reals(a)? };
    let result = product(left, Matrix { shape: vec![k, n], values })?;
    let result = real_tensor(a.dtype, &result.shape, result.values)?;
    Ok(vec![match call.optional(5) {
        Some(bias) => combine(&result, bias, |a, b| a + b, |_, _| None)?,
        None => result,
    }])
}

/// Rows of a quantized table, dequantized along their last axis.
pub(super) fn gather_block_quantized(call: &Call) -> Outputs {
    let (data, indices, scale) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let rank = data.shape.len();
    let last = call.int("quantize_axis", 1)?;
    let is_last = rank > 1 && (last == -1 || last == rank as i64 - 1);
    if call.int("gather_axis", 0)? != 0 || !is_last {
        return Err(call.unsupported("along other axes than the first and the last"));
    }
    let block = size(call, "block_size", 128)?;
    if block == 0 || scale.shape.len() != rank {
        return Err(call.shape_error("scales differ from the blocks"));
    }
    let bits = if data.dtype == DType::U8 { bits(call)? } else { data.dtype.bits() as u32 };
    let (shape, values) = rows(call, &take(data, indices, 0)?, bits)?;
    let scale = take(scale, indices, 0)?;
    let mut expected = shape.clone();
    let width = expected.pop().unwrap_or(0);
    let groups = width.div_ceil(block);
    expected.push(groups);
    if scale.shape != expected {
        return Err(call.shape_error("scales differ from the blocks"));
    }
    let middle = if data.dtype == DType::U8 { 1 << (bits - 1) } else { 0 };
    let zero_points = match call.optional(3) {
        None => vec![middle; scale.numel()],
        Some(zero) if zero.shape.is_empty() => return Err(call.shape_error("zero points")),
        // A row of zero points is padded to whole bytes.
        Some(zero) => {
            let (padded, list) = rows(call, &take(zero, indices, 0)?, bits)?;
            let stored = padded.last().copied().unwrap_or(0).max(1);
            list.chunks_exact(stored).flat_map(|it| it.iter().take(groups).copied()).collect()
        }
    };
    if zero_points.len() != scale.numel() {
        return Err(call.shape_error("zero points differ from the scales"));
    }
    let scales = scale.to_f32()?;
    let at = blocks(&shape, shape.len() - 1, block);
    let values = values.iter().zip(at);
    let values =
        values.map(|(integer, at)| f64::from((integer - zero_points[at]) as f32 * scales[at]));
    Ok(vec![real_tensor(scale.dtype, &shape, values)?])
}

/// The quantized values of a tensor whose last axis is packed in bytes, or stored in a narrow type.
fn rows(call: &Call, tensor: &Tensor, bits: u32) -> Result<(Vec<usize>, Vec<i64>), EvalError> {
    let mut shape = tensor.shape.clone();
    if tensor.dtype != DType::U8 {
        return Ok((shape, ints(tensor)?));
    }
    let per_byte = 8 / bits as usize;
    let Some(last) = shape.last_mut() else { return Err(call.shape_error("a scalar")) };
    *last *= per_byte;
    let count = elements(&shape)?;
    let list = unpack_bits(&tensor.bytes()?, bits, count);
    Ok((shape, list.into_iter().map(i64::from).collect()))
}

/// A zero point for each block: packed integers, floats, or the middle of the range.
fn zero_points(call: &Call, n: usize, groups: usize, bits: u32) -> Result<Vec<f32>, EvalError> {
    let Some(zero) = call.optional(3) else {
        return Ok(vec![(1u32 << (bits - 1)) as f32; n * groups]);
    };
    let stride = (groups * bits as usize).div_ceil(8);
    match zero.dtype {
        DType::U8 if zero.numel() == n * stride => {
            let list = quantized_by_row(zero, stride, bits)?;
            let per_row = stride * 8 / bits as usize;
            let rows = list.chunks_exact(per_row.max(1));
            Ok(rows.flat_map(|it| it[..groups].iter().map(|it| f32::from(*it))).collect())
        }
        it if it.is_float() && zero.numel() == n * groups => Ok(zero.to_f32()?),
        _ => Err(call.shape_error("zero points differ from K and N")),
    }
}

fn quantized_by_row(tensor: &Tensor, stride: usize, bits: u32) -> Result<Vec<u8>, EvalError> {
    if bits == 8 {
        return quantized(tensor, 8);
    }
    let rows = tensor.numel() / stride.max(1);
    Ok(unpack_bits(&tensor.bytes()?, bits, rows * stride * 8 / bits as usize))
}

fn bits(call: &Call) -> Result<u32, EvalError> {
    match call.int("bits", 4)? {
        bits @ (2 | 4 | 8) => Ok(bits as u32),
        _ => Err(wrong("bits", "is not 2, 4 or 8")),
    }
}

/// A size small enough to multiply.
fn size(call: &Call, name: &str, default: i64) -> Result<usize, EvalError> {
    let size = usize::try_from(call.int(name, default)?);
    size.ok().filter(|it| elements(&[*it]).is_ok()).ok_or_else(|| wrong(name, "is out of range"))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{
        eval::testing::*,
        ir::Attrs,
        tensor::{Packing, Part, QMatrix, QShape, ZeroPoints},
    };

    /// Three rows of 40 columns in blocks of 16, of which the last is short.
    fn quantized(bits: u32) -> QMatrix {
        let zero_points = ZeroPoints::Asymmetric;
        let shape = QShape {
            n: 3,
            k: 40,
            block: 16,
            bits,
            zero_points,
            scale: DType::F32,
            superblock: None,
        };
        let top = 1usize << bits;
        QMatrix::plain(
            shape,
            Array2::from_shape_fn((3, 40), |(i, j)| ((i * 7 + j * 5) % top) as u8),
            Array2::from_shape_fn((3, 3), |(i, j)| 0.25 + (i + 2 * j) as f32 / 16.0),
            Array2::from_shape_fn((3, 3), |(i, j)| ((i + j) % top) as u8),
        )
    }

    fn part(q: &QMatrix, packing: Packing, part: Part) -> Tensor {
        let (dtype, shape) = packing.layout(q.shape, part);
        Tensor::new(dtype, shape, packing.pack(q, part))
    }

    #[test]
    fn products_are_those_of_the_dequantized_weight() {
        for bits in [2, 4, 8] {
            let q = quantized(bits);
            let x: Vec<f32> = (0..40).map(|it| (it % 7) as f32 - 3.0).collect();
            let a = f32s(&[1, 40], &x);
            let parts = [Part::Quantized, Part::Scales, Part::ZeroPoints];
            let [quantized, scales, zero_points] = parts.map(|it| part(&q, Packing::NBits, it));
            let attrs = Attrs::default()
                .with("K", 40i64)
                .with("N", 3i64)
                .with("bits", i64::from(bits))
                .with("block_size", 16i64);
            let op = "com.microsoft.MatMulNBits";
            let product =
                eval(op, &[&a, &quantized, &scales, &zero_points], attrs.clone()).unwrap();
            let expected: Vec<f32> = q
                .dequantize()
                .rows()
                .into_iter()
                .map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum())
                .collect();
            assert_eq!(product.shape, [1, 3]);
            close(&product, &expected);
            let short = f32s(&[1, 39], &x[..39]);
            assert!(eval(op, &[&short, &quantized, &scales], attrs).is_err());
        }
    }

    #[test]
    fn rows_are_those_of_the_dequantized_table() {
        for bits in [2, 4, 8] {
            let q = quantized(bits);
            let parts = [Part::Quantized, Part::Scales, Part::ZeroPoints];
            let [quantized, scales, zero_points] = parts.map(|it| part(&q, Packing::Gather, it));
            let attrs = Attrs::default().with("bits", i64::from(bits)).with("block_size", 16i64);
            let indices = i64s(&[1, 2], &[2, 0]);
            let op = "com.microsoft.GatherBlockQuantized";
            let rows = eval(op, &[&quantized, &indices, &scales, &zero_points], attrs).unwrap();
            let table = q.dequantize();
            let expected: Vec<f32> = table.row(2).iter().chain(table.row(0)).copied().collect();
            assert_eq!(rows.shape, [1, 2, 40]);
            close(&rows, &expected);
        }
    }
}
