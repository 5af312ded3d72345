//! Sizes that are taken from a `Shape` become a constant if they are known numbers.
//!
//! ```text
//! Gather(Shape(x), 3), x: float[b,s,8,64]           →      64
//! Slice(Shape(x), -1, max), x: float[b,s,8,64]      →      [64]
//! ```
//!
//! Exporters compute the scale of an attention from the size of its heads this way.

use crate::Rule;
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, no_match,
    tensor::{Dim, Tensor},
};

pub(super) const GATHER_OF_SHAPE: Rule = Rule {
    name: "gather-of-shape",
    help: "Gather of sizes that are known → a constant",
    root: "Gather",
    apply: gather,
};

pub(super) const SLICE_OF_SHAPE: Rule = Rule {
    name: "slice-of-shape",
    help: "Slice of sizes that are known → a constant",
    root: "Slice",
    apply: slice,
};

fn gather(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let dims = dims(m, node)?;
    let index = m.constant(m.operand(node, 1)?)?;
    let at = m.small_i64(m.operand(node, 1)?)?;
    let sizes: Vec<i64> = at
        .into_iter()
        .map(|it| known(&dims, position(it, dims.len())?))
        .collect::<Result<_, _>>()?;
    constant(m, node, Tensor::from_i64(&index.shape.clone(), sizes))
}

fn slice(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let dims = dims(m, node)?;
    let one = |index| match m.small_i64(m.operand(node, index)?)?[..] {
        [it] => Ok(it),
        _ => Err(no_match!("the slice has several axes")),
    };
    let (start, end) = (one(1)?, one(2)?);
    if m.operand(node, 4).is_ok() && one(4)? != 1 {
        return Err(no_match!("the slice has a step"));
    }
    let len = dims.len() as i64;
    let bound = |it: i64| (if it < 0 { it.saturating_add(len) } else { it }).clamp(0, len) as usize;
    let range = bound(start)..bound(end).max(bound(start));
    let sizes: Vec<i64> = range.map(|it| known(&dims, it)).collect::<Result<_, _>>()?;
    constant(m, node, Tensor::from_i64(&[sizes.len()], sizes))
}

/// The dimensions that the `Shape` before `node` says.
fn dims(m: &Model, node: NodeId) -> Result<Vec<Dim>, NoMatch> {
    let shape = m.producer(m.operand(node, 0)?, "Shape")?;
    // ONNX Runtime writes defaults out.
    if m.int_attr(shape, "start", 0) != 0 || m.node(shape).attrs.get("end").is_some() {
        return Err(no_match!("{} is of a part", m.node_label(shape)));
    }
    Ok(m.shape(m.operand(shape, 0)?)?.clone())
}

fn position(at: i64, len: usize) -> Result<usize, NoMatch> {
    let it = if at < 0 { at.saturating_add(len as i64) } else { at };
    usize::try_from(it).map_err(|_| no_match!("there is no dimension {at}"))
}

fn known(dims: &[Dim], at: usize) -> Result<i64, NoMatch> {
    let size = dims.get(at).and_then(Dim::fixed).and_then(|it| i64::try_from(it).ok());
    size.ok_or_else(|| no_match!("dimension {at} is no number"))
}

fn constant(m: &Model, node: NodeId, tensor: Tensor) -> Result<Patch, NoMatch> {
    let name = m.value(m.node(node).output()).name.to_string();
    super::bypass_by_constant(m, node, &name, tensor)
}
