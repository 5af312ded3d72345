//! A `Gather` of a list that is itself a `Gather` with constant indices takes straight from the source.
//!
//! ```text
//! Gather(Gather(v, {0, 2, 1, 3}), 3)                  →      Gather(v, 3)
//! ```
//!
//! ONNX Runtime leaves this where it moved a `Transpose` behind a `Shape`.

use super::stem;
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, no_match, tensor::Tensor};

pub(super) const GATHER_OF_GATHER: Rule = Rule {
    name: "gather-of-gather",
    help: "Gather of a list that a Gather reorders → one Gather",
    root: "Gather",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let inner = m.producer(m.operand(node, 0)?, "Gather")?;
    let source = m.operand(inner, 0)?;
    if m.rank(source) != Some(1) {
        return Err(no_match!("its source is no list"));
    }
    let (order, indices) = (m.operand(inner, 1)?, m.operand(node, 1)?);
    let shape = m.constant(indices)?.shape.clone();
    if m.constant(order)?.shape.len() != 1 {
        return Err(no_match!("the inner indices are no list"));
    }
    let order = m.small_i64(order)?;
    let taken = m.small_i64(indices)?.into_iter().map(|at| {
        let at = if at < 0 { at.saturating_add(order.len() as i64) } else { at };
        let found = usize::try_from(at).ok().and_then(|at| order.get(at));
        found.copied().ok_or_else(|| no_match!("there is no element {at}"))
    });
    let taken: Vec<i64> = taken.collect::<Result<_, _>>()?;
    let mut patch = Patch::before(node);
    let indices = patch.constant("indices", Tensor::from_i64(&shape, taken));
    let inputs = [source.into(), indices];
    let y = patch.node(&stem(m, node), "Gather", inputs, Attrs::default());
    Ok(patch.replace(m.node(node).output(), y))
}
