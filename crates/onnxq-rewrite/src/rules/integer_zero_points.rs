//! Float zero points of `MatMulNBits` that are integers become packed integers.
//!
//! ONNX Runtime has no fast kernel for float zero points: it dequantizes the weight in each run,
//! about a hundred times slower.

use crate::Rule;
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, no_match,
    tensor::{DType, Tensor, pack_bits},
};

pub(super) const INTEGER_ZERO_POINTS: Rule = Rule {
    name: "integer-zero-points",
    help: "store float zero points of MatMulNBits as packed integers if they are integers",
    root: "com.microsoft.MatMulNBits",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let zero = m.operand(node, 3)?;
    let (name, tensor) = (&m.value(zero).name, m.constant(zero)?);
    if !tensor.dtype.is_float() {
        return Err(no_match!("`{name}` is {}, not float", tensor.dtype));
    }
    let bits = u32::try_from(m.int_attr(node, "bits", 4)).unwrap_or(0);
    if !matches!(bits, 2 | 4 | 8) {
        return Err(no_match!("weights of {bits} bits"));
    }
    let (n, groups) = extent(m, node)?;
    if n.checked_mul(groups) != Some(tensor.numel()) {
        return Err(no_match!("`{name}` ({tensor:?}) has not {n}×{groups} elements"));
    }
    let values = tensor.to_f32().map_err(|err| no_match!("`{name}`: {err}"))?;
    let top = ((1u32 << bits) - 1) as f32;
    if let Some(it) = values.iter().find(|it| it.fract() != 0.0 || !(0.0..=top).contains(*it)) {
        return Err(no_match!("`{name}` holds {it}, which is no integer of {bits} bits"));
    }
    let rows = values.chunks(groups.max(1));
    let packed = rows.flat_map(|row| pack_bits(row.iter().map(|it| *it as u8), bits).to_vec());
    let width = (groups * bits as usize).div_ceil(8);
    let tensor = Tensor::new(DType::U8, vec![n, width], packed.collect::<Vec<u8>>());
    let mut patch = Patch::before(node);
    let packed = patch.constant(name, tensor);
    Ok(patch.rewire(node, 3, packed))
}

/// Rows of the weight, and blocks of each.
fn extent(m: &Model, node: NodeId) -> Result<(usize, usize), NoMatch> {
    let size = |name: &str| match usize::try_from(m.int_attr(node, name, 0)) {
        Ok(0) | Err(_) => Err(no_match!("`{name}` is missing or out of range")),
        Ok(it) => Ok(it),
    };
    Ok((size("N")?, size("K")?.div_ceil(size("block_size")?)))
}
