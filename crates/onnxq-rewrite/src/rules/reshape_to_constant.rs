//! `Reshape(x, Concat(Shape(x)…))` with a known result becomes `Reshape(x, [0, -1, 8, 32])`.
//!
//! Exporters compute each target from `Shape`, `Gather`, `Unsqueeze` and `Concat`: several nodes
//! per reshape, whose overhead quantization does not make smaller. Shape inference already knows
//! the result; 0 keeps a dimension of the input, and at most one -1 is left to be computed.

use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match,
    tensor::{Dim, Shape, Tensor},
};

pub(super) const RESHAPE_TO_CONSTANT: Rule = Rule {
    name: "reshape-to-constant",
    help: "Reshape to a computed shape that inference knows → Reshape to a constant",
    root: "Reshape",
    apply,
};

fn apply(m: &Model, reshape: NodeId) -> Result<Patch, NoMatch> {
    let (x, target) = (m.operand(reshape, 0)?, m.operand(reshape, 1)?);
    if m.constant(target).is_ok() {
        return Err(no_match!("`{}` is constant already", m.value(target).name));
    }
    to_constant(m, reshape, x)
}

/// `x` in the shape that inference knows for the result of `reshape`.
pub(super) fn to_constant(m: &Model, reshape: NodeId, x: ValueId) -> Result<Patch, NoMatch> {
    let y = m.node(reshape).output();
    let target = constant_target(m.shape(x)?, m.shape(y)?)
        .ok_or_else(|| no_match!("more than one dimension of `{}` is open", m.value(y).name))?;
    let mut patch = Patch::before(reshape);
    let name = format!("{}.shape", m.value(y).name);
    let shape = patch.constant(&name, Tensor::from_i64(&[target.len()], target));
    let new = patch.node(&m.node(reshape).name, "Reshape", [x.into(), shape], Attrs::default());
    Ok(patch.replace(y, new))
}

/// What keeps, states or leaves open each dimension; at most one is open.
fn constant_target(input: &Shape, output: &Shape) -> Option<Vec<i64>> {
    let mut open = 0;
    let mut target = Vec::with_capacity(output.len());
    for (axis, dim) in output.iter().enumerate() {
        let kept = input.get(axis).is_some_and(|it| it.surely_equals(dim));
        target.push(match dim {
            Dim::Fixed(0) => return None,
            Dim::Fixed(it) => i64::try_from(*it).ok()?,
            _ if kept => 0,
            _ => {
                open += 1;
                -1
            }
        });
    }
    (open <= 1).then_some(target)
}
