//! Quantized values of quantized weights in another type or order, made when they are read.

use std::sync::Arc;

use onnxq_ir::{
    NoMatch, no_match,
    tensor::{DType, Tensor, TensorError, pack_bits, unpack_bits},
};

/// Bits of a quantized value; a miss for what are no quantized values.
pub(super) fn bits(dtype: DType) -> Result<u32, NoMatch> {
    use DType::{I2, I4, I8, U2, U4, U8};
    match dtype {
        U8 | I8 => Ok(8),
        U4 | I4 => Ok(4),
        U2 | I2 => Ok(2),
        it => Err(no_match!("elements of type {it} are no quantized values")),
    }
}

pub(super) fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::I4 | DType::I2)
}

/// Signed integers as unsigned ones or the other way round: half the range is added, which flips
/// the highest bit of each.
pub(super) fn flipped(tensor: &Tensor, dtype: DType) -> Tensor {
    let base = tensor.clone();
    let mask = match dtype.bits() {
        8 => 0x80u8,
        4 => 0x88,
        _ => 0xaa,
    };
    Tensor::lazy(dtype, tensor.shape.clone(), move || {
        Ok(base.bytes()?.iter().map(|it| it ^ mask).collect::<Vec<u8>>().into())
    })
}

/// Unsigned integers of one byte each, whatever type they are stored in.
pub(super) fn unpacked(tensor: &Tensor) -> Result<Vec<u8>, TensorError> {
    let dtype = tensor.dtype;
    let bits = dtype.bits() as u32;
    let mut quantized = unpack_bits(&tensor.bytes()?, bits, tensor.numel());
    if is_signed(dtype) {
        quantized.iter_mut().for_each(|it| *it ^= 1 << (bits - 1));
    }
    Ok(quantized)
}

/// Unsigned integers in bytes, each row of the last axis padded to whole bytes.
pub(super) fn packed_rows(tensor: &Tensor) -> Result<Tensor, NoMatch> {
    let base = tensor.clone();
    let bits = bits(base.dtype)?;
    let per_byte = 8 / bits as usize;
    let mut shape = base.shape.clone();
    let columns = shape.last().copied().unwrap_or(1);
    if let Some(last) = shape.last_mut() {
        *last = columns.div_ceil(per_byte);
    }
    Ok(Tensor::lazy(DType::U8, shape, move || {
        let quantized = unpacked(&base)?;
        let rows = quantized.chunks(columns.max(1));
        let packed: Vec<u8> =
            rows.flat_map(|row| pack_bits(row.iter().copied(), bits).to_vec()).collect();
        Ok(packed.into())
    }))
}

/// A matrix of quantized values or scales with its axes swapped.
pub(super) fn swapped(tensor: &Tensor) -> Tensor {
    let bits = tensor.dtype.bits() as u32;
    if bits >= 8 {
        return tensor.transposed();
    }
    let base = Arc::new(tensor.clone());
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    Tensor::lazy(tensor.dtype, vec![columns, rows], move || {
        let quantized = unpack_bits(&base.bytes()?, bits, rows * columns);
        let order = (0..columns).flat_map(|i| (0..rows).map(move |j| j * columns + i));
        Ok(pack_bits(order.map(|at| quantized[at]), bits))
    })
}

/// One element at each place of `shape`.
pub(super) fn repeated(tensor: &Tensor, shape: Vec<usize>) -> Result<Tensor, NoMatch> {
    if tensor.numel() != 1 {
        return Err(no_match!("{tensor:?} is more than one number"));
    }
    let bytes = tensor.bytes().map_err(|err| no_match!("{err}"))?;
    let count = shape.iter().product::<usize>();
    if tensor.dtype.bits() >= 8 {
        return Ok(Tensor::new(tensor.dtype, shape, bytes.repeat(count)));
    }
    let bits = tensor.dtype.bits() as u32;
    let code = unpack_bits(&bytes, bits, 1)[0];
    Ok(Tensor::new(tensor.dtype, shape, pack_bits(std::iter::repeat_n(code, count), bits)))
}
