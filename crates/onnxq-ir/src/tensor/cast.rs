//! Rows of any float type to `f32` and back; integers of any width to `i64`.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::{DType, TensorError, minifloat};

/// Reads `bytes` as elements of `dtype` into `out`, which has one place for each.
pub fn to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), TensorError> {
    fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: fn([u8; N]) -> f32) {
        for (to, from) in out.iter_mut().zip(bytes.chunks_exact(N)) {
            *to = read(from.try_into().expect("a chunk of N bytes"));
        }
    }
    match dtype {
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::F16 => each(bytes, out, |it| f16::from_le_bytes(it).to_f32()),
        DType::BF16 => each(bytes, out, |it| bf16::from_le_bytes(it).to_f32()),
        DType::F64 => each(bytes, out, |it| f64::from_le_bytes(it) as f32),
        _ => {
            let read = minifloat::reader(dtype).ok_or(TensorError::NotFloat(dtype))?;
            out.iter_mut().zip(bytes).for_each(|(to, from)| *to = read(*from));
        }
    }
    Ok(())
}

/// The bytes of `values` as elements of `dtype`, rounded to nearest even.
pub fn from_f32(dtype: DType, values: &[f32]) -> Result<Vec<u8>, TensorError> {
    Ok(match dtype {
        DType::F32 if cfg!(target_endian = "little") => bytemuck::cast_slice(values).to_vec(),
        DType::F32 => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|it| bf16::from_f32(*it).to_le_bytes()).collect(),
        DType::F64 => values.iter().flat_map(|it| f64::from(*it).to_le_bytes()).collect(),
        _ => return Err(TensorError::NotFloat(dtype)),
    })
}

/// Columns of a row-major matrix of `stride` columns, as rows of `out`.
///
/// Walks the source once, in its own order: a column's neighbours share its cache lines.
pub(super) fn columns_to_f32(
    dtype: DType,
    bytes: &[u8],
    stride: usize,
    columns: Range<usize>,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let width = dtype.bits() / 8;
    let rows = bytes.len() / (stride * width).max(1);
    let mut line = vec![0.0; columns.len()];
    for row in 0..rows {
        let start = (row * stride + columns.start) * width;
        to_f32(dtype, &bytes[start..start + columns.len() * width], &mut line)?;
        for (column, value) in line.iter().enumerate() {
            out[column * rows + row] = *value;
        }
    }
    Ok(())
}

pub(super) fn to_i64(dtype: DType, bytes: &[u8]) -> Result<Vec<i64>, TensorError> {
    fn each<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.chunks_exact(N).map(|it| read(it.try_into().expect("a chunk of N bytes"))).collect()
    }
    Ok(match dtype {
        DType::I64 => each(bytes, i64::from_le_bytes),
        DType::U64 => each(bytes, |it| u64::from_le_bytes(it) as i64),
        DType::I32 => each(bytes, |it| i64::from(i32::from_le_bytes(it))),
        DType::U32 => each(bytes, |it| i64::from(u32::from_le_bytes(it))),
        DType::I16 => each(bytes, |it| i64::from(i16::from_le_bytes(it))),
        DType::U16 => each(bytes, |it| i64::from(u16::from_le_bytes(it))),
        DType::I8 => each(bytes, |it: [u8; 1]| i64::from(it[0] as i8)),
        DType::U8 | DType::Bool => each(bytes, |it: [u8; 1]| i64::from(it[0])),
        _ => return Err(TensorError::NotInteger(dtype)),
    })
}

/// The first value that is not finite, as `(index, what)`.
pub fn first_non_finite(values: &[f32]) -> Option<(usize, &'static str)> {
    // A sum is not finite if a term is not, and vectorises; the search runs only then.
    const CHUNK: usize = 1 << 16;
    let suspicious = |it: &[f32]| !it.iter().fold(0.0f32, |sum, v| sum + v * 0.0).is_finite();
    let chunk = values.par_chunks(CHUNK).position_first(suspicious)?;
    let tail = &values[chunk * CHUNK..];
    let at = tail.iter().position(|it| !it.is_finite())?;
    let what = if tail[at].is_nan() { "NaN" } else { "Inf" };
    Some((chunk * CHUNK + at, what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn half_floats_survive(values in proptest::collection::vec(-1e4f32..1e4, 1..40)) {
            for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                let bytes = from_f32(dtype, &values).unwrap();
                let mut once = vec![0.0; values.len()];
                to_f32(dtype, &bytes, &mut once).unwrap();
                // What a narrow type could hold, it holds exactly.
                prop_assert_eq!(from_f32(dtype, &once).unwrap(), bytes);
            }
        }

        #[test]
        fn non_finite_values_are_found(at in 0usize..200_000, nan in any::<bool>()) {
            let mut values = vec![1.0f32; 200_000];
            values[at] = if nan { f32::NAN } else { f32::NEG_INFINITY };
            let what = if nan { "NaN" } else { "Inf" };
            prop_assert_eq!(first_non_finite(&values), Some((at, what)));
        }
    }
}
