//! Operators that ONNX Runtime 1.31 lacks from some version on, in words that it knows.

use std::collections::BTreeMap;

use super::edit::{Edit, ints, known_dtype, number, stem};
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match};

/// The newest operator set that it accepts: models of newer ones are for others.
pub const NEWEST_THAT_RUNS: i64 = 26;

/// Nothing else computes it.
pub(super) fn no_kernel(_: &Model, node: NodeId, target: i64) -> Result<Edit, NoMatch> {
    if target > NEWEST_THAT_RUNS {
        return Ok(Edit::keep(node));
    }
    Err(no_match!("ONNX Runtime cannot run it at opset 22 and later"))
}

/// Operators with a kernel before a version, which since then are functions of small nodes.
const EXPANDED: &[(&str, i64)] = &[("Attention", 25)];

/// How many nodes of each become slower on the way from `from` to `target`.
pub(super) fn expanded(m: &Model, from: i64, target: i64) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for node in m.nodes() {
        let op = &m.node(node).op;
        if EXPANDED.iter().any(|(name, since)| op.is(name) && from < *since && target >= *since) {
            *found.entry(op.to_string()).or_default() += 1;
        }
    }
    found
}

/// A norm of all spatial elements.
pub(super) fn global_lp_pool_22(m: &Model, node: NodeId, target: i64) -> Result<Edit, NoMatch> {
    let x = m.operand(node, 0)?;
    let reduce = match m.int_attr(node, "p", 2) {
        1 => "ReduceL1",
        2 => "ReduceL2",
        _ => return no_kernel(m, node, target),
    };
    let Some(rank) = m.rank(x) else { return no_kernel(m, node, target) };
    let (name, mut patch) = (stem(m, node), Patch::before(node));
    let axes: Vec<i64> = (2..rank as i64).collect();
    let axes = patch.constant(&format!("{name}.axes"), ints(&axes));
    let output = m.node(node).output();
    let (node_name, y) = (&m.node(node).name, &m.value(output).name);
    let y = patch.named(node_name, y, reduce, [x.into(), axes], Attrs::default());
    Ok(Edit::replace(patch.replace(output, y)))
}

/// `x * Sigmoid(alpha * x)`.
pub(super) fn swish_25(m: &Model, node: NodeId, _: i64) -> Result<Edit, NoMatch> {
    let (x, alpha) = (m.operand(node, 0)?, m.float_attr(node, "alpha", 1.0));
    let (name, mut patch) = (stem(m, node), Patch::before(node));
    let mut inner: Ref = x.into();
    if alpha != 1.0 {
        let what = format!("{name}.alpha");
        let alpha = patch.constant(&what, number(known_dtype(m, x)?, alpha)?);
        inner = patch.step(&what, "Mul", [inner, alpha], Attrs::default());
    }
    let gate = patch.step(&format!("{name}.gate"), "Sigmoid", [inner], Attrs::default());
    let output = m.node(node).output();
    let (node_name, y) = (&m.node(node).name, &m.value(output).name);
    let y = patch.named(node_name, y, "Mul", [x.into(), gate], Attrs::default());
    Ok(Edit::replace(patch.replace(output, y)))
}
