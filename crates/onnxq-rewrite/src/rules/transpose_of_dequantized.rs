//! `Transpose` behind a dequantized constant moves into its quantized values.
//!
//! ```text
//! Transpose(DequantizeLinear <axis: a> (w, s, z))    →    DequantizeLinear <axis: 1-a> (wᵀ, sᵀ, zᵀ)
//! ```

use super::recode::{bits, swapped};
use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match};

pub(super) const TRANSPOSE_OF_DEQUANTIZED: Rule = Rule {
    name: "transpose-of-dequantized",
    help: "transpose the quantized values of a dequantized matrix instead of the matrix",
    root: "Transpose",
    apply,
};

fn apply(m: &Model, transpose: NodeId) -> Result<Patch, NoMatch> {
    let dq = m.producer(m.operand(transpose, 0)?, "DequantizeLinear")?;
    match m.ints_attr(transpose, "perm") {
        None | Some([1, 0]) => {}
        Some(it) => return Err(no_match!("perm is {it:?}, not [1, 0]")),
    }
    let mut patch = Patch::before(transpose);
    let y = dequantized(m, dq, &m.node(transpose).name, &mut patch)?;
    Ok(patch.replace(m.node(transpose).output(), y))
}

/// The transposed matrix behind a `DequantizeLinear`.
pub(super) fn dequantized(
    m: &Model,
    dq: NodeId,
    name: &str,
    patch: &mut Patch,
) -> Result<Ref, NoMatch> {
    let w = m.operand(dq, 0)?;
    let quantized = m.constant(w)?;
    bits(quantized.dtype)?;
    if quantized.shape.len() != 2 {
        return Err(no_match!("`{}` is no matrix ({quantized:?})", m.value(w).name));
    }
    let mut inputs = vec![patch.constant(&m.value(w).name, swapped(quantized))];
    for index in [1, 2] {
        if let Ok(it) = m.operand(dq, index) {
            inputs.push(parameter(m, it, patch)?);
        }
    }
    let mut attrs = m.node(dq).attrs.clone();
    let axis = match m.int_attr(dq, "axis", 1) {
        it if it < 0 => it + 2,
        it => it,
    };
    // One scale for all has no axis.
    if m.constant(m.operand(dq, 1)?)?.numel() != 1 || m.int_attr(dq, "block_size", 0) != 0 {
        attrs.set("axis", (1 - axis).into());
    }
    Ok(patch.named(name, "w", "DequantizeLinear", inputs, attrs))
}

fn parameter(m: &Model, it: ValueId, patch: &mut Patch) -> Result<Ref, NoMatch> {
    let tensor = m.constant(it)?;
    Ok(match tensor.shape.len() {
        2 => patch.constant(&m.value(it).name, swapped(tensor)),
        _ => it.into(),
    })
}
