//! Inputs that data rarely holds because their names say what they must be.

use std::collections::BTreeMap;

use half::f16;

use super::IoInfo;
use onnxq_ir::tensor::{DType, Dim, Tensor};

/// A model may state any size for its cache.
const MAX_BYTES: usize = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    AttentionMask,
    Past,
    PositionIds,
    TokenTypeIds,
    UseCacheBranch,
}

pub fn role(name: &str) -> Option<Role> {
    match name {
        "attention_mask" => Some(Role::AttentionMask),
        "position_ids" => Some(Role::PositionIds),
        "token_type_ids" => Some(Role::TokenTypeIds),
        "use_cache_branch" => Some(Role::UseCacheBranch),
        _ => ["past.", "past_key", "past_value"]
            .iter()
            .any(|it| name.starts_with(it))
            .then_some(Role::Past),
    }
}

/// `[batch, sequence]` of one run, as the given tensors show it.
pub(crate) fn extent(
    inputs: &[IoInfo],
    given: &BTreeMap<String, Tensor>,
) -> Option<(usize, usize)> {
    let ids = given.get("input_ids").or_else(|| given.get("inputs_embeds"));
    let first =
        || inputs.iter().filter(|it| role(&it.name).is_none()).find_map(|it| given.get(&it.name));
    let tensor = ids.or_else(first).or_else(|| given.values().next())?;
    let batch = tensor.shape.first().copied().unwrap_or(1);
    Some((batch, tensor.shape.get(1).copied().unwrap_or(1)))
}

/// The input for a run of that extent without a past, or `None` if nobody can know it.
pub fn make(input: &IoInfo, (batch, sequence): (usize, usize)) -> Option<Tensor> {
    let rank = input.ty.rank();
    let dtype = input.ty.dtype;
    let matrix = rank.is_none_or(|it| it == 2).then_some([batch, sequence]);
    match role(&input.name)? {
        Role::AttentionMask => filled(dtype, &matrix?, |_| 1),
        Role::PositionIds if rank == Some(1) => filled(dtype, &[sequence], |it| it as i64),
        Role::PositionIds => filled(dtype, &matrix?, |it| (it % sequence.max(1)) as i64),
        Role::TokenTypeIds => filled(dtype, &matrix?, |_| 0),
        Role::UseCacheBranch => zeros(dtype, input.ty.fixed_shape().unwrap_or_else(|| vec![1])),
        Role::Past => zeros(dtype, past_shape(input.ty.shape.as_deref()?, batch)),
    }
}

/// The input for a run of `count` more tokens of one text, after `past` of them; not its cache.
pub(crate) fn after(input: &IoInfo, past: usize, count: usize) -> Option<Tensor> {
    let all = past + count;
    match role(&input.name)? {
        Role::AttentionMask => make(input, (1, all)),
        Role::PositionIds => {
            let rows = input.ty.rank() == Some(1);
            let shape = if rows { vec![count] } else { vec![1, count] };
            filled(input.ty.dtype, &shape, |it| (past + it) as i64)
        }
        Role::TokenTypeIds => make(input, (1, count)),
        Role::UseCacheBranch => {
            let shape = input.ty.fixed_shape().unwrap_or_else(|| vec![1]);
            filled(input.ty.dtype, &shape, |_| i64::from(past > 0))
        }
        Role::Past => None,
    }
}

/// Numbers of tokens, one text of them.
pub(crate) fn ids(input: &IoInfo, ids: &[u32]) -> Option<Tensor> {
    filled(input.ty.dtype, &[1, ids.len()], |it| i64::from(ids[it]))
}

/// The first axis is the batch; what is not fixed is the length of the past, which is empty.
fn past_shape(dims: &[Dim], batch: usize) -> Vec<usize> {
    let size =
        |(axis, dim): (usize, &Dim)| dim.fixed().unwrap_or(if axis == 0 { batch } else { 0 });
    dims.iter().enumerate().map(size).collect()
}

fn zeros(dtype: DType, shape: Vec<usize>) -> Option<Tensor> {
    let count = shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?;
    let len = dtype.nbytes(count).filter(|it| *it <= MAX_BYTES)?;
    Some(Tensor::new(dtype, shape, vec![0; len]))
}

fn filled(dtype: DType, shape: &[usize], value: impl Fn(usize) -> i64) -> Option<Tensor> {
    let values = (0..shape.iter().product()).map(value);
    let bytes: Vec<u8> = match dtype {
        DType::Bool | DType::I8 | DType::U8 => values.map(|it| it as u8).collect(),
        DType::F16 => values.flat_map(|it| f16::from_f32(it as f32).to_le_bytes()).collect(),
        DType::F32 => values.flat_map(|it| (it as f32).to_le_bytes()).collect(),
        DType::I32 => values.flat_map(|it| (it as i32).to_le_bytes()).collect(),
        DType::I64 => values.flat_map(i64::to_le_bytes).collect(),
        _ => return None,
    };
    Some(Tensor::new(dtype, shape.to_vec(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::TensorType;

    fn symbol(name: &str) -> Dim {
        Dim::Symbol(name.into())
    }

    fn made(name: &str, dtype: DType, dims: Vec<Dim>) -> Option<Tensor> {
        make(&IoInfo { name: name.into(), ty: TensorType::new(dtype, dims) }, (2, 3))
    }

    #[test]
    fn names_say_what_an_input_must_be() {
        let ids = || vec![symbol("batch"), symbol("sequence")];
        let values = |name, dtype| made(name, dtype, ids()).unwrap().to_i64().unwrap();
        assert_eq!(values("attention_mask", DType::I32), [1; 6]);
        assert_eq!(values("position_ids", DType::I64), [0, 1, 2, 0, 1, 2]);
        assert_eq!(values("token_type_ids", DType::I64), [0; 6]);
        assert!(made("pixel_values", DType::F32, ids()).is_none());
        let branch = made("use_cache_branch", DType::Bool, vec![Dim::Fixed(1)]).unwrap();
        assert_eq!(branch.to_i64().unwrap(), [0]);
    }

    #[test]
    fn a_text_goes_on_where_it_was() {
        let ids = || vec![symbol("batch"), symbol("sequence")];
        let info = |name: &str, dtype, dims| IoInfo {
            name: name.into(),
            ty: TensorType::new(dtype, dims),
        };
        let made = |name, dtype, dims| {
            let tensor = after(&info(name, dtype, dims), 3, 2).unwrap();
            (tensor.shape.clone(), tensor.to_i64().unwrap())
        };
        assert_eq!(made("attention_mask", DType::I64, ids()), (vec![1, 5], vec![1; 5]));
        assert_eq!(made("position_ids", DType::I32, ids()), (vec![1, 2], vec![3, 4]));
        let flat = vec![symbol("sequence")];
        assert_eq!(made("position_ids", DType::I64, flat), (vec![2], vec![3, 4]));
        let one = vec![Dim::Fixed(1)];
        assert_eq!(made("use_cache_branch", DType::Bool, one), (vec![1], vec![1]));
        assert!(after(&info("past_key_values.0.key", DType::F32, ids()), 3, 2).is_none());
        let tokens = super::ids(&info("input_ids", DType::I32, ids()), &[7, 8]).unwrap();
        assert_eq!((tokens.shape.clone(), tokens.to_i64().unwrap()), (vec![1, 2], vec![7, 8]));
    }

    #[test]
    fn the_past_is_empty_but_keeps_its_fixed_sizes() {
        let dims =
            vec![symbol("batch"), Dim::Fixed(4), symbol("past_sequence_length"), Dim::Fixed(8)];
        let past = made("past_key_values.0.key", DType::F32, dims).unwrap();
        assert_eq!((past.shape.as_slice(), past.nbytes()), (&[2, 4, 0, 8][..], 0));
        let huge = vec![symbol("batch"), Dim::Fixed(usize::MAX / 2), Dim::Fixed(3), Dim::Fixed(8)];
        assert!(made("past_key_values.0.key", DType::F32, huge).is_none());
    }
}
