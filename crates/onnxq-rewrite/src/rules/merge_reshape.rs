//! A `Reshape` that undoes another, or changes nothing, goes; two in a row become one.
//!
//! ```text
//! Reshape(Reshape(x, a), b)      →      x, or Reshape(x, b)
//! ```

use super::reshape_to_constant::to_constant;
use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, ValueId};

pub(super) const MERGE_RESHAPE: Rule = Rule {
    name: "merge-reshape",
    help: "remove Reshape that changes nothing; make one of two in a row",
    root: "Reshape",
    apply,
};

fn apply(m: &Model, reshape: NodeId) -> Result<Patch, NoMatch> {
    let (x, y) = (m.operand(reshape, 0)?, m.node(reshape).output());
    if same_shape(m, x, y)? {
        return super::bypass(m, reshape, x);
    }
    let before = m.producer(x, "Reshape")?;
    let x = m.operand(before, 0)?;
    super::same_graph(m, before, reshape)?;
    if same_shape(m, x, y)? {
        return super::bypass(m, reshape, x);
    }
    to_constant(m, reshape, x)
}

fn same_shape(m: &Model, x: ValueId, y: ValueId) -> Result<bool, NoMatch> {
    let (x, y) = (m.shape(x)?, m.shape(y)?);
    Ok(x.len() == y.len() && x.iter().zip(y).all(|(a, b)| a.surely_equals(b)))
}
