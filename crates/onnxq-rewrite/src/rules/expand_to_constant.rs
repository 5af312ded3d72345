//! `Expand(x, Concat(Shape(x)…))` with a known result becomes `Expand(x, [1, 1, 4, 1, 1])`.
//!
//! A 1 in the target keeps the dimension of the input, so only what really grows must be known.
//! The heads of grouped-query attention are repeated this way, through ten nodes per layer.

use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, no_match,
    tensor::{Dim, Shape, Tensor},
};

pub(super) const EXPAND_TO_CONSTANT: Rule = Rule {
    name: "expand-to-constant",
    help: "Expand to a computed shape that inference knows → Expand to a constant",
    root: "Expand",
    apply,
};

fn apply(m: &Model, expand: NodeId) -> Result<Patch, NoMatch> {
    let (x, target) = (m.operand(expand, 0)?, m.operand(expand, 1)?);
    if m.constant(target).is_ok() {
        return Err(no_match!("`{}` is constant already", m.value(target).name));
    }
    let y = m.node(expand).output();
    let target = constant_target(m.shape(x)?, m.shape(y)?)
        .ok_or_else(|| no_match!("`{}` grows by what is not known", m.value(y).name))?;
    let mut patch = Patch::before(expand);
    let name = format!("{}.shape", m.value(y).name);
    let shape = patch.constant(&name, Tensor::from_i64(&[target.len()], target));
    let new = patch.node(&m.node(expand).name, "Expand", [x.into(), shape], Attrs::default());
    Ok(patch.replace(y, new))
}

fn constant_target(input: &Shape, output: &Shape) -> Option<Vec<i64>> {
    let added = output.len().checked_sub(input.len())?;
    let dims = output.iter().enumerate().map(|(axis, dim)| {
        let from = axis.checked_sub(added).map(|it| &input[it]);
        match (from, dim) {
            (Some(from), _) if from.surely_equals(dim) => Some(1),
            (_, Dim::Fixed(it)) => i64::try_from(*it).ok(),
            _ => None,
        }
    });
    dims.collect()
}
