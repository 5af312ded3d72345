//! `Cast` and `CastLike`: from any element type to any other.

use std::str;

use bytes::Bytes;

use super::{
    EvalError,
    call::{Call, wrong},
    table::Outputs,
    values::{Values, bool_tensor, int_tensor, is_int, real_tensor},
};
use crate::tensor::{DType, Tensor};

pub(super) fn cast(call: &Call) -> Outputs {
    let to = call.dtype("to")?.ok_or_else(|| wrong("to", "is missing"))?;
    Ok(vec![convert(call.input(0)?, to)?])
}

pub(super) fn cast_like(call: &Call) -> Outputs {
    Ok(vec![convert(call.input(0)?, call.input(1)?.dtype)?])
}

/// Floats become integers towards zero; what does not fit 64 bits saturates, what does not fit
/// fewer wraps.
pub(super) fn convert(tensor: &Tensor, to: DType) -> Result<Tensor, EvalError> {
    if tensor.dtype == to {
        return Ok(tensor.clone());
    }
    let shape = &tensor.shape;
    match Values::of(tensor)? {
        Values::Bool(it) if to == DType::String => {
            let word = |it| Bytes::from_static(if it { b"1" } else { b"0" });
            Ok(Tensor::strings(shape.clone(), it.into_iter().map(word).collect::<Vec<_>>()))
        }
        Values::Bool(it) => from_ints(it.into_iter().map(i128::from), shape, to),
        Values::Int(it) => from_ints(it.into_iter(), shape, to),
        Values::Real(it) => from_reals(it.into_iter(), shape, to),
        Values::Text(it) => {
            let parsed = it.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            from_reals(parsed.into_iter(), shape, to)
        }
    }
}

fn from_ints(
    values: impl Iterator<Item = i128>,
    shape: &[usize],
    to: DType,
) -> Result<Tensor, EvalError> {
    match to {
        DType::Bool => Ok(bool_tensor(shape, values.map(|it| it != 0))),
        DType::F64 => real_tensor(to, shape, values.map(|it| it as f64)),
        DType::String => {
            let words = values.map(|it| Bytes::from(it.to_string()));
            Ok(Tensor::strings(shape.to_vec(), words.collect::<Vec<_>>()))
        }
        // Rounded once, not over `f64`.
        it if it.is_float() => real_tensor(to, shape, values.map(|it| f64::from(it as f32))),
        _ => int_tensor(to, shape, values),
    }
}

fn from_reals(
    values: impl Iterator<Item = f64>,
    shape: &[usize],
    to: DType,
) -> Result<Tensor, EvalError> {
    match to {
        DType::Bool => Ok(bool_tensor(shape, values.map(|it| it != 0.0))),
        DType::U64 => int_tensor(to, shape, values.map(|it| i128::from(it as u64))),
        it if is_int(it) => int_tensor(to, shape, values.map(|it| i128::from(it as i64))),
        it if it.is_float() => real_tensor(to, shape, values),
        got => Err(EvalError::Type { expected: "numbers", got }),
    }
}

fn parse(word: &Bytes) -> Result<f64, EvalError> {
    let number = str::from_utf8(word).ok().and_then(|it| it.trim().parse().ok());
    number.ok_or(EvalError::Type { expected: "numbers", got: DType::String })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn casts_truncate_and_round() {
        let x = f32s(&[4], &[-1.7, 1.7, 300.0, f32::NAN]);
        let to = |it: DType| Attrs::default().with("to", i64::from(it.number()));
        let ints = eval("Cast", &[&x], to(DType::U8)).unwrap();
        assert_eq!(ints.to_i64().unwrap(), [255, 1, 44, 0]);
        let bools = eval("Cast", &[&x], to(DType::Bool)).unwrap();
        assert_eq!(bools.to_i64().unwrap(), [1, 1, 1, 1]);
        let large = Tensor::from_i64(&[1], [(1 << 24) + 1]);
        close(&eval("Cast", &[&large], to(DType::F32)).unwrap(), &[16777216.0]);
        assert!(eval("Cast", &[&x], Attrs::default().with("to", 999i64)).is_err());
    }
}
