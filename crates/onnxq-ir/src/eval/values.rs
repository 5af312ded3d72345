//! Elements as numbers and back: floats compute as `f64`, integers as `i128`, then round or wrap.

use bytes::Bytes;
use half::{bf16, f16};

use super::EvalError;
use crate::tensor::{DType, Tensor, pack_bits, unpack_bits};

/// The elements of a tensor. `f64` holds sums and products of `f32` so well that rounding
/// twice gives what `f32` arithmetic gives; `i128` holds every integer type.
pub(super) enum Values {
    Bool(Vec<bool>),
    Int(Vec<i128>),
    Real(Vec<f64>),
    Text(Vec<Bytes>),
}

impl Values {
    pub(super) fn of(tensor: &Tensor) -> Result<Values, EvalError> {
        Ok(match tensor.dtype {
            DType::Bool => Values::Bool(bools(tensor)?),
            DType::String => Values::Text(texts(tensor)?.to_vec()),
            it if it.is_float() => Values::Real(reals(tensor)?),
            _ => Values::Int(wide_ints(tensor)?),
        })
    }

    /// The tensor of these elements, rounded or wrapped to `dtype`, which is of the same kind.
    pub(super) fn tensor(self, dtype: DType, shape: &[usize]) -> Result<Tensor, EvalError> {
        match self {
            Values::Bool(it) => Ok(bool_tensor(shape, it)),
            Values::Int(it) => int_tensor(dtype, shape, it),
            Values::Real(it) => real_tensor(dtype, shape, it),
            Values::Text(it) => Ok(Tensor::strings(shape.to_vec(), it)),
        }
    }
}

/// The elements of a float tensor.
pub(super) fn reals(tensor: &Tensor) -> Result<Vec<f64>, EvalError> {
    match tensor.dtype {
        DType::F32 => each(tensor, |it| f32::from_le_bytes(it).into()),
        DType::F64 => each(tensor, f64::from_le_bytes),
        DType::F16 => each(tensor, |it| f16::from_le_bytes(it).to_f32().into()),
        DType::BF16 => each(tensor, |it| bf16::from_le_bytes(it).to_f32().into()),
        got => Err(EvalError::Type { expected: "floats", got }),
    }
}

/// The elements of a float or integer tensor.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f64>, EvalError> {
    if tensor.dtype.is_float() {
        return reals(tensor);
    }
    Ok(wide_ints(tensor)?.into_iter().map(|it| it as f64).collect())
}

/// The elements of an integer or boolean tensor; large `uint64` wrap.
pub(super) fn ints(tensor: &Tensor) -> Result<Vec<i64>, EvalError> {
    let bits = tensor.dtype.bits() as u32;
    match tensor.dtype {
        DType::U2 | DType::U4 => Ok(quantized(tensor, bits)?.into_iter().map(i64::from).collect()),
        DType::I2 | DType::I4 => {
            let signed = |it: u8| i64::from((it << (8 - bits)) as i8 >> (8 - bits));
            Ok(quantized(tensor, bits)?.into_iter().map(signed).collect())
        }
        it if is_int(it) || it == DType::Bool => Ok(tensor.to_i64()?),
        got => Err(EvalError::Type { expected: "integers", got }),
    }
}

pub(super) fn bools(tensor: &Tensor) -> Result<Vec<bool>, EvalError> {
    match tensor.dtype {
        DType::Bool => each(tensor, |[it]| it != 0),
        got => Err(EvalError::Type { expected: "booleans", got }),
    }
}

pub(super) fn texts(tensor: &Tensor) -> Result<&[Bytes], EvalError> {
    let got = tensor.dtype;
    let list = tensor.string_values().ok_or(EvalError::Type { expected: "strings", got })?;
    if list.len() != tensor.numel() {
        let what = format!("{tensor:?} has {} strings", list.len());
        return Err(EvalError::Shape { what });
    }
    Ok(list)
}

/// The bit patterns of a tensor whose elements are narrower than a byte.
pub(super) fn quantized(tensor: &Tensor, bits: u32) -> Result<Vec<u8>, EvalError> {
    Ok(unpack_bits(&tensor.bytes()?, bits, tensor.numel()))
}

pub(super) fn is_int(dtype: DType) -> bool {
    range(dtype).is_some()
}

/// The least and the greatest value of an integer type.
pub(super) fn range(dtype: DType) -> Option<(i128, i128)> {
    let bits = dtype.bits() as u32;
    match dtype {
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
            Some((0, (1 << bits) - 1))
        }
        DType::I2 | DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
            Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        }
        _ => None,
    }
}

/// A float tensor; narrow types are rounded from `f32`, as ONNX Runtime computes them.
pub(super) fn real_tensor(
    dtype: DType,
    shape: &[usize],
    values: impl IntoIterator<Item = f64>,
) -> Result<Tensor, EvalError> {
    let values = values.into_iter();
    let bytes = match dtype {
        DType::F32 => join(values.map(|it| (it as f32).to_le_bytes())),
        DType::F64 => join(values.map(f64::to_le_bytes)),
        DType::F16 => join(values.map(|it| f16::from_f32(it as f32).to_le_bytes())),
        DType::BF16 => join(values.map(|it| bf16::from_f32(it as f32).to_le_bytes())),
        got => return Err(EvalError::Type { expected: "floats", got }),
    };
    Ok(Tensor::new(dtype, shape.to_vec(), bytes))
}

/// An integer tensor; what does not fit wraps.
pub(super) fn int_tensor(
    dtype: DType,
    shape: &[usize],
    values: impl IntoIterator<Item = i128>,
) -> Result<Tensor, EvalError> {
    let values = values.into_iter();
    let bytes = match dtype.bits() {
        _ if !is_int(dtype) => return Err(EvalError::Type { expected: "integers", got: dtype }),
        bits @ (2 | 4) => {
            let mask = (1 << bits) - 1;
            pack_bits(values.map(|it| it as u8 & mask), bits as u32)
        }
        8 => join(values.map(|it| [it as u8])),
        16 => join(values.map(|it| (it as u16).to_le_bytes())),
        32 => join(values.map(|it| (it as u32).to_le_bytes())),
        _ => join(values.map(|it| (it as u64).to_le_bytes())),
    };
    Ok(Tensor::new(dtype, shape.to_vec(), bytes))
}

pub(super) fn bool_tensor(shape: &[usize], values: impl IntoIterator<Item = bool>) -> Tensor {
    let bytes: Vec<u8> = values.into_iter().map(u8::from).collect();
    Tensor::new(DType::Bool, shape.to_vec(), bytes)
}

/// The value of a tensor of one integer.
pub(super) fn one_int(tensor: &Tensor) -> Result<i64, EvalError> {
    only(tensor, ints(tensor)?)
}

/// The value of a tensor of one boolean.
pub(super) fn one_bool(tensor: &Tensor) -> Result<bool, EvalError> {
    only(tensor, bools(tensor)?)
}

/// The only one of the values read from `tensor`.
pub(super) fn only<T: Copy>(tensor: &Tensor, values: Vec<T>) -> Result<T, EvalError> {
    let [it] = values[..] else {
        return Err(EvalError::Shape { what: format!("{tensor:?} does not hold one value") });
    };
    Ok(it)
}

fn wide_ints(tensor: &Tensor) -> Result<Vec<i128>, EvalError> {
    let values = ints(tensor)?.into_iter();
    Ok(match tensor.dtype {
        DType::U64 => values.map(|it| i128::from(it as u64)).collect(),
        _ => values.map(i128::from).collect(),
    })
}

fn each<const N: usize, T>(
    tensor: &Tensor,
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, EvalError> {
    let bytes = tensor.bytes()?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|it| read(*it)).collect())
}

fn join<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Bytes {
    values.collect::<Vec<_>>().into_flattened().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_type_holds_its_range_and_wraps_beyond() {
        for &dtype in DType::ALL.iter().filter(|it| is_int(**it)) {
            let (low, high) = range(dtype).unwrap();
            let tensor = int_tensor(dtype, &[3], [low, high, high + 1]).unwrap();
            let Values::Int(values) = Values::of(&tensor).unwrap() else { panic!("{dtype}") };
            assert_eq!(values, [low, high, low], "{dtype}");
        }
    }

    #[test]
    fn narrow_floats_round() {
        let tensor = real_tensor(DType::BF16, &[1], [1.0 + 1.0 / 256.0]).unwrap();
        assert_eq!(reals(&tensor).unwrap(), [1.0]);
    }
}
