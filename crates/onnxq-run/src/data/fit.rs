//! Whether a tensor fits an input: shape, element type, finite values.

use std::{collections::BTreeMap, sync::Arc};

use half::f16;

use super::DataError;
use crate::engine::IoInfo;
use onnxq_ir::tensor::{DType, Dim, Tensor, TensorError, first_non_finite, from_f32};

/// The tensor as `input` takes it.
pub(super) fn fit(input: &IoInfo, tensor: Tensor) -> Result<Tensor, DataError> {
    check_shape(input, &tensor.shape)?;
    let (name, actual, expected) = (|| input.name.clone(), tensor.dtype, input.ty.dtype);
    if let Some((at, what)) = non_finite(&tensor) {
        return Err(DataError::NonFinite { input: name(), what, at });
    }
    if actual == expected {
        return Ok(tensor);
    }
    match converted(&tensor, expected) {
        Ok((tensor, None)) => Ok(tensor),
        Ok((_, Some(at))) => Err(DataError::Inexact { input: name(), actual, expected, at }),
        Err(_) => Err(DataError::DType { input: name(), actual, expected }),
    }
}

pub(super) fn check_shape(input: &IoInfo, actual: &[usize]) -> Result<(), DataError> {
    let Some(expected) = &input.ty.shape else { return Ok(()) };
    let fits = |(dim, size): (&Dim, &usize)| dim.fixed().is_none_or(|it| it == *size);
    if expected.len() == actual.len() && expected.iter().zip(actual).all(fits) {
        return Ok(());
    }
    let (input, expected) = (input.name.clone(), expected.clone());
    Err(DataError::Shape { input, actual: actual.to_vec(), expected })
}

/// A symbol has one value per run, so arrays that do not belong together are noticed.
pub(super) fn check_symbols(
    inputs: &[IoInfo],
    given: &BTreeMap<String, Tensor>,
) -> Result<(), DataError> {
    let mut sizes: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for input in inputs {
        let (Some(shape), Some(tensor)) = (&input.ty.shape, given.get(&input.name)) else {
            continue;
        };
        for (dim, &actual) in shape.iter().zip(&tensor.shape) {
            let Dim::Symbol(symbol) = dim else { continue };
            let expected = *sizes.entry(symbol.clone()).or_insert(actual);
            if expected != actual {
                let (input, symbol) = (input.name.clone(), symbol.to_string());
                return Err(DataError::Symbol { input, symbol, actual, expected });
            }
        }
    }
    Ok(())
}

/// The tensor in another element type of its kind, and the first element that changed.
pub fn converted(tensor: &Tensor, to: DType) -> Result<(Tensor, Option<usize>), TensorError> {
    let (bytes, lost) = if tensor.dtype.is_float() {
        convert_floats(tensor, to)?
    } else {
        convert_integers(tensor, to)?
    };
    Ok((Tensor::new(to, tensor.shape.clone(), bytes), lost))
}

fn convert_floats(tensor: &Tensor, to: DType) -> Result<(Vec<u8>, Option<usize>), TensorError> {
    let source = tensor.bytes()?;
    if tensor.dtype != DType::F64 {
        let values = tensor.to_f32()?;
        let bytes = from_f32(to, &values)?;
        let lost = match to {
            DType::F32 | DType::F64 => None,
            _ => {
                let back = Tensor::new(to, tensor.shape.clone(), bytes.clone()).to_f32()?;
                values.iter().zip(&back).position(|(a, b)| a != b && !a.is_nan())
            }
        };
        return Ok((bytes, lost));
    }
    let doubles: Vec<f64> = source
        .chunks_exact(8)
        .map(|it| f64::from_le_bytes(it.try_into().expect("a chunk of 8 bytes")))
        .collect();
    // Straight from double: rounding twice may differ by a unit.
    let bytes = match to {
        DType::F16 => doubles.iter().flat_map(|it| f16::from_f64(*it).to_le_bytes()).collect(),
        DType::BF16 => {
            doubles.iter().flat_map(|it| half::bf16::from_f64(*it).to_le_bytes()).collect()
        }
        _ => from_f32(to, &tensor.to_f32()?)?,
    };
    let back = Tensor::new(to, tensor.shape.clone(), bytes.clone()).to_f32()?;
    let lost = doubles.iter().zip(&back).position(|(a, b)| *a != f64::from(*b) && !a.is_nan());
    Ok((bytes, lost))
}

fn convert_integers(tensor: &Tensor, to: DType) -> Result<(Vec<u8>, Option<usize>), TensorError> {
    fn each<const N: usize>(
        values: &[i64],
        write: impl Fn(i64) -> Option<[u8; N]>,
    ) -> (Vec<u8>, Option<usize>) {
        let lost = values.iter().position(|it| write(*it).is_none());
        (values.iter().flat_map(|it| write(*it).unwrap_or([0; N])).collect(), lost)
    }
    let values = tensor.to_i64()?;
    let (bytes, lost) = match to {
        DType::I8 => each(&values, |it| Some(i8::try_from(it).ok()?.to_le_bytes())),
        DType::I16 => each(&values, |it| Some(i16::try_from(it).ok()?.to_le_bytes())),
        DType::I32 => each(&values, |it| Some(i32::try_from(it).ok()?.to_le_bytes())),
        DType::I64 => each(&values, |it| Some(it.to_le_bytes())),
        DType::U8 => each(&values, |it| Some(u8::try_from(it).ok()?.to_le_bytes())),
        DType::U16 => each(&values, |it| Some(u16::try_from(it).ok()?.to_le_bytes())),
        DType::U32 => each(&values, |it| Some(u32::try_from(it).ok()?.to_le_bytes())),
        DType::U64 => each(&values, |it| Some(u64::try_from(it).ok()?.to_le_bytes())),
        _ => return Err(TensorError::NotInteger(to)),
    };
    // Values above i64 were read as negative ones.
    let wrapped = || values.iter().position(|it| *it < 0);
    let lost = if tensor.dtype == DType::U64 { lost.or_else(wrapped) } else { lost };
    Ok((bytes, lost))
}

fn non_finite(tensor: &Tensor) -> Option<(usize, &'static str)> {
    if tensor.dtype == DType::F64 {
        let bytes = tensor.bytes().ok()?;
        let mut values = bytes.as_chunks::<8>().0.iter().map(|it| f64::from_le_bytes(*it));
        let mut what = "Inf";
        let at = values.position(|it| {
            what = if it.is_nan() { "NaN" } else { "Inf" };
            !it.is_finite()
        })?;
        return Some((at, what));
    }
    first_non_finite(&tensor.to_f32().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::TensorType,
    };

    fn input(dtype: DType, dims: &[usize]) -> IoInfo {
        IoInfo { name: "x".into(), ty: TensorType::new(dtype, dims.iter().copied()) }
    }

    fn doubles(values: &[f64]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        Tensor::new(DType::F64, vec![values.len()], bytes)
    }

    #[test]
    fn exact_casts_are_silent_and_others_errors() {
        let narrow = fit(&input(DType::I32, &[2]), Tensor::from_i64(&[2], [-1, 7])).unwrap();
        assert_eq!((narrow.dtype, narrow.to_i64().unwrap()), (DType::I32, vec![-1, 7]));
        let single = fit(&input(DType::F32, &[2]), doubles(&[0.5, -3.0])).unwrap();
        assert_eq!(single.to_f32().unwrap(), [0.5, -3.0]);

        let code = |input, tensor| fit(&input, tensor).unwrap_err().code();
        assert_eq!(code(input(DType::I32, &[1]), Tensor::from_i64(&[1], [1 << 31])), Code::E604);
        assert_eq!(code(input(DType::F32, &[1]), doubles(&[0.1])), Code::E604);
        assert_eq!(code(input(DType::F32, &[1]), Tensor::from_i64(&[1], [1])), Code::E604);
        assert_eq!(code(input(DType::I64, &[1]), Tensor::from_f32(&[1], [1.0])), Code::E604);
        let top = Tensor::new(DType::U64, vec![1], u64::MAX.to_le_bytes().to_vec());
        assert_eq!(code(input(DType::I64, &[1]), top), Code::E604);
    }

    #[test]
    fn shapes_and_values_are_checked() {
        let code = |input, tensor| fit(&input, tensor).unwrap_err().code();
        assert_eq!(code(input(DType::F32, &[2]), Tensor::from_f32(&[3], [0.; 3])), Code::E603);
        assert_eq!(code(input(DType::F32, &[2]), Tensor::from_f32(&[2, 1], [0.; 2])), Code::E603);
        assert_eq!(
            code(input(DType::F32, &[2]), Tensor::from_f32(&[2], [0., f32::NAN])),
            Code::E605
        );
        assert_eq!(code(input(DType::F32, &[1]), doubles(&[f64::INFINITY])), Code::E605);
        assert!(fit(&input(DType::F64, &[1]), doubles(&[1e300])).is_ok());
    }
}
