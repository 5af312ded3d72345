//! Which tensors a method has for a weight, and where in them an integer lies.

use onnxq_ir::tensor::{DType, QShape, ZeroPoints};

use super::{
    Part, Parts,
    config::Method,
    source::{Along, Integers, Packed, Scales},
};
use crate::CheckpointError;

const FLOATS: &[DType] = &[DType::F16, DType::BF16, DType::F32];

/// Where GEMM's AWQ puts the column `j` of eight.
const AWQ: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

pub(super) fn packed(method: &Method, parts: &mut Parts) -> Result<Packed, CheckpointError> {
    match *method {
        Method::Gptq { bits, group, less_one, name } => {
            let values = parts.need("qweight", &[DType::I32])?;
            let [words, n] = values.sizes()?;
            let k = words.saturating_mul(32) / bits as usize;
            let values = values.checked(&[(k * bits as usize).div_ceil(32), n])?;
            let integers = Integers::new(values.bytes, bits, Along::Down { width: n });
            let zeros = (bits, i16::from(less_one));
            by_groups(parts, (n, k, group), integers, zeros, &format!("{name} {bits} bits"))
        }
        Method::Awq { group, name } => {
            let values = parts.need("qweight", &[DType::I32])?;
            let [k, words] = values.sizes()?;
            let n = words.saturating_mul(8);
            let along = Along::Across { words, order: Some(AWQ) };
            let integers = Integers::by_input(values.bytes, 4, along);
            by_groups(parts, (n, k, group), integers, (4, 0), &format!("{name} 4 bits"))
        }
        Method::Packed { bits } => by_rows(parts, Some(bits)),
        Method::Bytes => by_rows(parts, None),
    }
}

/// GPTQ and AWQ: scales by groups and outputs, zero points in words along the outputs.
fn by_groups(
    parts: &mut Parts,
    (n, k, group): (usize, usize, Option<usize>),
    integers: Integers,
    (bits, raised): (u32, i16),
    kind: &str,
) -> Result<Packed, CheckpointError> {
    let block = group.unwrap_or(k).min(k);
    let groups = k.div_ceil(block);
    let words = (n * bits as usize).div_ceil(32);
    let zeros = parts.need("qzeros", &[DType::I32])?.checked(&[groups, words])?;
    let order = integers.is_by_input().then_some(AWQ);
    let zeros = Integers::by_input(zeros.bytes, bits, Along::Across { words, order });
    let scales = parts.need("scales", FLOATS)?.checked(&[groups, n])?;
    let scale = scales.dtype;
    let scales = Scales::new(scales, n, 1);
    let columns = match parts.take("g_idx", &[DType::I32, DType::I64])? {
        Some(it) => groups_of(it.checked(&[k])?, block, groups)?,
        None => None,
    };
    let zeros: Vec<i16> = (0..n)
        .flat_map(|row| (0..groups).map(move |group| (row, group)))
        .map(|(row, group)| i16::from(zeros.get(row, group)) + raised)
        .collect();
    let grid =
        QShape { n, k, block, bits, zero_points: ZeroPoints::Asymmetric, scale, superblock: None };
    Ok(Packed::new(kind, grid, integers, zeros, scales, columns))
}

/// compressed-tensors: everything by outputs.
fn by_rows(parts: &mut Parts, packed: Option<u32>) -> Result<Packed, CheckpointError> {
    let bits = packed.unwrap_or(8);
    let per_word = 32 / bits as usize;
    let (n, k, integers) = match packed {
        None => {
            let values = parts.need("weight", &[DType::I8])?;
            let [n, k] = values.sizes()?;
            (n, k, Integers::new(values.bytes, 8, Along::Bytes { width: k }))
        }
        Some(_) => {
            let values = parts.need("weight_packed", &[DType::I32])?;
            let [n, words] = values.sizes()?;
            let k = shape_of(parts, n, words * per_word, per_word)?;
            (n, k, Integers::new(values.bytes, bits, Along::Across { words, order: None }))
        }
    };
    let scales = parts.need("weight_scale", FLOATS)?;
    let groups = match scales.shape[..] {
        [rows, groups] if rows == n && groups > 0 && k.is_multiple_of(groups) => groups,
        [rows] if rows == n => 1,
        // One scale for all is the scale of each row.
        [] | [1] | [1, 1] => 0,
        _ => return Err(wrong(&scales, format!("of [{n}, groups]"))),
    };
    let scale = scales.dtype;
    let scales =
        if groups == 0 { Scales::new(scales, 0, 0) } else { Scales::new(scales, 1, groups) };
    let groups = groups.max(1);
    let middle = 1i16 << (bits - 1);
    let zeros =
        zeros_of_rows(parts, (n, groups), packed)?.unwrap_or_else(|| vec![middle; n * groups]);
    let block = k / groups;
    let columns = match parts.take("weight_g_idx", &[DType::I32, DType::I64])? {
        // Groups in order are written so, too.
        Some(it) if it.shape == [k] => groups_of(it, block, groups)?,
        Some(it) => return Err(wrong(&it, format!("of [{k}]"))),
        None => None,
    };
    let grid =
        QShape { n, k, block, bits, zero_points: ZeroPoints::Asymmetric, scale, superblock: None };
    let kind = format!("compressed-tensors {bits} bits");
    Ok(Packed::new(&kind, grid, integers, zeros, scales, columns))
}

fn wrong(part: &Part, expected: String) -> CheckpointError {
    let actual = format!("{}{:?}", part.dtype, part.shape);
    CheckpointError::Shape { name: part.name.clone(), actual, expected }
}

/// How many inputs `weight_shape` says, of `most` that fit.
fn shape_of(
    parts: &mut Parts,
    n: usize,
    most: usize,
    per_word: usize,
) -> Result<usize, CheckpointError> {
    let Some(part) = parts.take("weight_shape", &[DType::I32, DType::I64])? else {
        return Ok(most);
    };
    let sizes = whole(&part);
    let known = |it: i64| usize::try_from(it).ok();
    match sizes[..] {
        [rows, columns] if known(rows) == Some(n) => match known(columns) {
            Some(k) if k > most - per_word && k <= most => Ok(k),
            _ => Err(wrong(&part, format!("[{n}, {most}] or a few less"))),
        },
        _ => Err(wrong(&part, format!("[{n}, {most}]"))),
    }
}

/// Zero points as they are stored: signed bytes, or words along the outputs.
fn zeros_of_rows(
    parts: &mut Parts,
    (n, groups): (usize, usize),
    packed: Option<u32>,
) -> Result<Option<Vec<i16>>, CheckpointError> {
    let Some(part) = parts.take("weight_zero_point", &[DType::I8, DType::I32])? else {
        return Ok(None);
    };
    let integers = match (packed, part.dtype) {
        (Some(bits), DType::I32) => {
            let words = n.div_ceil(32 / bits as usize);
            let part = part.checked(&[words, groups])?;
            Integers::new(part.bytes, bits, Along::Down { width: groups })
        }
        (_, DType::I8) if part.shape.iter().product::<usize>() == n * groups => {
            let raised = 128 - packed.map_or(128, |bits| 1i16 << (bits - 1));
            let bytes = Integers::new(part.bytes, 8, Along::Bytes { width: groups });
            let cells = (0..n).flat_map(|row| (0..groups).map(move |group| (row, group)));
            return Ok(Some(cells.map(|it| i16::from(bytes.get(it.0, it.1)) - raised).collect()));
        }
        _ => return Err(wrong(&part, format!("of [{n}, {groups}]"))),
    };
    // Word by word down the outputs: rows are columns here.
    let cells = (0..n).flat_map(|row| (0..groups).map(move |group| (row, group)));
    Ok(Some(cells.map(|(row, group)| i16::from(integers.get(group, row))).collect()))
}

/// The group of each input, if they do not follow each other.
fn groups_of(
    part: Part,
    block: usize,
    groups: usize,
) -> Result<Option<Vec<usize>>, CheckpointError> {
    let places: Option<Vec<usize>> = whole(&part)
        .into_iter()
        .map(|it| usize::try_from(it).ok().filter(|it| *it < groups))
        .collect();
    let places = places.ok_or_else(|| wrong(&part, format!("groups below {groups}")))?;
    let is_trivial = places.iter().enumerate().all(|(i, it)| *it == i / block);
    Ok((!is_trivial).then_some(places))
}

/// The elements of a small tensor of integers.
fn whole(part: &Part) -> Vec<i64> {
    let bytes = &part.bytes;
    match part.dtype {
        DType::I64 => bytes.as_chunks().0.iter().map(|it| i64::from_le_bytes(*it)).collect(),
        _ => bytes.as_chunks().0.iter().map(|it| i32::from_le_bytes(*it).into()).collect(),
    }
}
