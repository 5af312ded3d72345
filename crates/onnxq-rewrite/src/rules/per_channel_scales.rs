//! A weight with one scale gets the same scale for each column.
//!
//! ONNX Runtime fuses `MatMul(x, DequantizeLinear(w))` to `MatMulNBits` for scales per column or
//! block and for a scalar; with one scale of shape `[1]` it dequantizes the weight in each run.

use super::recode::{bits, repeated};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, User, no_match};

pub(super) const PER_CHANNEL_SCALES: Rule = Rule {
    name: "per-channel-scales",
    help: "repeat the one scale of a MatMul's weight for each column, which ONNX Runtime fuses",
    root: "DequantizeLinear",
    apply,
};

fn apply(m: &Model, dq: NodeId) -> Result<Patch, NoMatch> {
    if m.opset("") < 13 {
        return Err(no_match!("scales per column need opset 13, the model has {}", m.opset("")));
    }
    let (w, scale) = (m.operand(dq, 0)?, m.operand(dq, 1)?);
    let quantized = m.constant(w)?;
    bits(quantized.dtype)?;
    let &[_, n] = &quantized.shape[..] else {
        return Err(no_match!("`{}` is no matrix ({quantized:?})", m.value(w).name));
    };
    let one = m.constant(scale)?;
    if one.numel() != 1 || m.int_attr(dq, "block_size", 0) != 0 {
        return Err(no_match!("`{}` is more than one scale", m.value(scale).name));
    }
    if one.shape.is_empty() {
        return Err(no_match!("`{}` is a scalar, which is fused", m.value(scale).name));
    }
    let output = m.node(dq).output();
    if !m.value(output).uses.iter().any(|it| is_weight_only(m, it.user, it.index)) {
        return Err(no_match!("`{}` is the weight of no float MatMul", m.value(output).name));
    }
    let mut patch = Patch::before(dq);
    let scales = patch.constant(&m.value(scale).name, repeated(one, vec![n])?);
    let mut inputs: Vec<Ref> = vec![w.into(), scales];
    if let Ok(zero) = m.operand(dq, 2) {
        let zero_points = repeated(m.constant(zero)?, vec![n])?;
        inputs.push(patch.constant(&m.value(zero).name, zero_points));
    }
    let mut attrs: Attrs = m.node(dq).attrs.clone();
    attrs.set("axis", 1i64.into());
    let y = patch.named(&m.node(dq).name, "y", "DequantizeLinear", inputs, attrs);
    Ok(patch.replace(output, y))
}

/// Products whose activation is dequantized too become integer kernels as they are.
fn is_weight_only(m: &Model, user: User, index: usize) -> bool {
    let User::Node(user) = user else { return false };
    if !m.node(user).op.is("MatMul") || index != 1 {
        return false;
    }
    let Ok(x) = m.operand(user, 0) else { return false };
    let quantized = m.producer(x, "DequantizeLinear").and_then(|it| m.operand(it, 0));
    quantized.is_err() || quantized.is_ok_and(|it| m.constant(it).is_ok())
}
