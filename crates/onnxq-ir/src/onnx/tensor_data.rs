//! The data of a `TensorProto`: raw, or in one of its typed fields.

use bytes::Bytes;

use super::{TensorProblem, proto::TensorProto};
use crate::tensor::{DType, Tensor};

/// The typed field that holds data, and how many entries it has.
pub(super) fn typed_field(proto: &TensorProto) -> Option<(&'static str, usize)> {
    typed_fields(proto).next()
}

fn typed_fields(proto: &TensorProto) -> impl Iterator<Item = (&'static str, usize)> {
    [
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("string_data", proto.string_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
    ]
    .into_iter()
    .filter(|it| it.1 > 0)
}

/// The tensor that the message itself holds.
pub(super) fn embedded(
    proto: &TensorProto,
    dtype: DType,
    shape: Vec<usize>,
    nbytes: usize,
) -> Result<Tensor, TensorProblem> {
    let typed = typed_field(proto);
    if let (Some(_), Some((field, _))) = (&proto.raw_data, typed) {
        return Err(TensorProblem::Twice(field));
    }
    if let Some((field, _)) = typed_fields(proto).nth(1) {
        return Err(TensorProblem::Twice(field));
    }
    if dtype == DType::String {
        return strings(proto, shape, typed);
    }
    let bytes = match (&proto.raw_data, typed) {
        (Some(raw), _) => raw.clone(),
        (None, Some((field, _))) => typed_bytes(proto, dtype, field)?,
        (None, None) => Bytes::new(),
    };
    if bytes.is_empty() && nbytes > 0 {
        // Nothing but the dimensions claims that there is any data.
        return Err(TensorProblem::Overflow(proto.dims.clone()));
    }
    if bytes.len() != nbytes {
        let actual = bytes.len();
        return Err(TensorProblem::Size { dtype, shape, expected: nbytes, actual });
    }
    Ok(Tensor::new(dtype, shape, bytes))
}

fn strings(
    proto: &TensorProto,
    shape: Vec<usize>,
    typed: Option<(&'static str, usize)>,
) -> Result<Tensor, TensorProblem> {
    let dtype = DType::String;
    match typed {
        Some((field, _)) if field != "string_data" => {
            return Err(TensorProblem::Field { dtype, field });
        }
        None if proto.raw_data.is_some() => {
            return Err(TensorProblem::Field { dtype, field: "raw_data" });
        }
        _ => {}
    }
    let (expected, actual) = (shape.iter().product(), proto.string_data.len());
    if expected != actual {
        return Err(TensorProblem::Size { dtype, shape, expected, actual });
    }
    Ok(Tensor::strings(shape, proto.string_data.clone()))
}

/// Data of a typed field, as `raw_data` would hold it.
fn typed_bytes(
    proto: &TensorProto,
    dtype: DType,
    field: &'static str,
) -> Result<Bytes, TensorProblem> {
    use DType::*;
    let bytes: Vec<u8> = match (field, dtype) {
        ("float_data", F32 | C64) => le(&proto.float_data, |it| it.to_le_bytes()),
        ("double_data", F64 | C128) => le(&proto.double_data, |it| it.to_le_bytes()),
        ("int64_data", I64) => le(&proto.int64_data, |it| it.to_le_bytes()),
        ("uint64_data", U64) => le(&proto.uint64_data, |it| it.to_le_bytes()),
        ("uint64_data", U32) => {
            let fits = |it: &u64| u32::try_from(*it).map_err(|_| *it as i64);
            narrow(&proto.uint64_data, dtype, fits, u32::to_le_bytes)?
        }
        ("int32_data", I32) => le(&proto.int32_data, |it| it.to_le_bytes()),
        ("int32_data", I16) => narrow(&proto.int32_data, dtype, i32_to, i16::to_le_bytes)?,
        ("int32_data", U16 | F16 | BF16) => {
            narrow(&proto.int32_data, dtype, i32_to, u16::to_le_bytes)?
        }
        ("int32_data", I8) => narrow(&proto.int32_data, dtype, i32_to, i8::to_le_bytes)?,
        ("int32_data", Bool) => narrow(
            &proto.int32_data,
            dtype,
            |it| u8::try_from(*it).ok().filter(|it| *it < 2).ok_or(i64::from(*it)),
            u8::to_le_bytes,
        )?,
        // 4- and 2-bit elements are packed: each entry is one byte of them.
        ("int32_data", it) if it.bits() <= 8 && it.bits() > 0 => {
            narrow(&proto.int32_data, dtype, i32_to, u8::to_le_bytes)?
        }
        _ => return Err(TensorProblem::Field { dtype, field }),
    };
    Ok(bytes.into())
}

fn le<T: Copy, const N: usize>(list: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    list.iter().flat_map(|it| bytes(*it)).collect()
}

fn narrow<T, U, const N: usize>(
    list: &[T],
    dtype: DType,
    fits: impl Fn(&T) -> Result<U, i64>,
    bytes: fn(U) -> [u8; N],
) -> Result<Vec<u8>, TensorProblem> {
    let mut out = Vec::with_capacity(list.len() * N);
    for it in list {
        let it = fits(it).map_err(|value| TensorProblem::Value { dtype, value })?;
        out.extend(bytes(it));
    }
    Ok(out)
}

fn i32_to<U: TryFrom<i32>>(value: &i32) -> Result<U, i64> {
    U::try_from(*value).map_err(|_| i64::from(*value))
}
