//! `MatMul(Expand(x, shape), y)` becomes `MatMul(x, y)` where `y` brings the same batches.
//!
//! `MatMul` repeats its operands along batches by itself. Exports of rotary embeddings repeat the
//! frequencies before they are multiplied with the positions, through eight nodes per run.

use crate::Rule;
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, Ref, no_match,
    tensor::{Dim, Shape},
};

pub(super) const REMOVE_EXPAND: Rule = Rule {
    name: "remove-expand",
    help: "Expand along batches that the other operand of MatMul has too → nothing",
    root: "MatMul",
    apply,
};

fn apply(m: &Model, product: NodeId) -> Result<Patch, NoMatch> {
    let operands = [m.operand(product, 0)?, m.operand(product, 1)?];
    let expands = [0, 1].map(|side| m.producer(operands[side], "Expand").ok());
    let side = expands.iter().position(Option::is_some);
    let side = side.ok_or_else(|| no_match!("no operand comes from Expand"))?;
    let (expand, other) = (expands[side].expect("just found"), operands[1 - side]);
    let x = m.operand(expand, 0)?;
    if !is_needless(m.shape(x)?, m.shape(operands[side])?, m.shape(other)?) {
        return Err(no_match!("`{}` grows where the other operand may not", m.value(x).name));
    }
    let mut patch = Patch::before(product);
    let mut inputs: [Ref; 2] = operands.map(Ref::from);
    inputs[side] = x.into();
    let node = m.node(product);
    let y =
        patch.named(&node.name, &m.value(node.output()).name, "MatMul", inputs, node.attrs.clone());
    Ok(patch.replace(node.output(), y))
}

/// Whether batches that grow are those of the other operand, and matrices stay as they are.
fn is_needless(from: &Shape, to: &Shape, other: &Shape) -> bool {
    if from.len() < 2 || other.len() < to.len() {
        return false;
    }
    let (added, offset) = (to.len() - from.len().min(to.len()), other.len() - to.len());
    (0..to.len()).all(|axis| {
        let own = axis.checked_sub(added).map(|it| &from[it]);
        let stays = own.is_some_and(|it| it.surely_equals(&to[axis]));
        let grows = own.is_none_or(|it| *it == Dim::Fixed(1));
        let is_batch = axis + 2 < to.len();
        stays || (is_batch && grows && to[axis].surely_equals(&other[axis + offset]))
    })
}
