//! `Slice` of the whole of a tensor goes: the causal mask of each layer, cut to the length it has.

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match};

pub(super) const REMOVE_SLICE: Rule =
    Rule { name: "remove-slice", help: "remove Slice that keeps everything", root: "Slice", apply };

fn apply(m: &Model, slice: NodeId) -> Result<Patch, NoMatch> {
    let (x, y) = (m.operand(slice, 0)?, m.node(slice).output());
    if let Ok(steps) = m.operand(slice, 4)
        && m.small_i64(steps)?.iter().any(|it| *it != 1)
    {
        return Err(NoMatch("it changes the order or leaves elements out".into()));
    }
    let (from, to) = (m.shape(x)?, m.shape(y)?);
    // With steps of one, as many elements can only be the same elements.
    let whole = from.len() == to.len() && from.iter().zip(to).all(|(a, b)| a.surely_equals(b));
    if !whole {
        return Err(no_match!("`{}` may be shorter than `{}`", m.value(y).name, m.value(x).name));
    }
    super::bypass(m, slice, x)
}
