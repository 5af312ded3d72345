//! A value beside itself, transposed, is its transpose beside itself.
//!
//! ```text
//! Transpose(Concat(x, x, axis), perm)                 →      Concat(Transpose(x), Transpose(x))
//! ```
//!
//! ONNX Runtime moves the `Transpose` of the angles of a rotary embedding behind the `Concat` of their
//! halves; the rules that look for one expect it before.

use super::{same_graph, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, no_match};

pub(super) const TRANSPOSE_OF_CONCAT: Rule = Rule {
    name: "transpose-of-concat",
    help: "Transpose of a value beside itself → the transposed value beside itself",
    root: "Transpose",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let concat = m.producer(m.operand(node, 0)?, "Concat")?;
    same_graph(m, node, concat)?;
    m.only_use(m.node(concat).output())?;
    let x = m.operand(concat, 0)?;
    let count = m.node(concat).inputs.len();
    if m.node(concat).inputs.iter().any(|other| *other != Some(x)) {
        return Err(no_match!("it is of several values"));
    }
    let perm = m.ints_attr(node, "perm").ok_or_else(|| no_match!("its order is not stated"))?;
    let axis = m.int_attr(concat, "axis", 0);
    let axis = if axis < 0 { axis + perm.len() as i64 } else { axis };
    let Some(axis) = perm.iter().position(|it| *it == axis) else {
        return Err(no_match!("there is no axis {axis}"));
    };
    let mut patch = Patch::before(node);
    let attrs = Attrs::default().with("perm", perm.to_vec());
    let name = format!("{}.transposed", m.value(x).name);
    let turned = patch.step(&name, "Transpose", [x.into()], attrs);
    let attrs = Attrs::default().with("axis", axis as i64);
    let y = patch.node(&stem(m, concat), "Concat", vec![turned; count], attrs);
    Ok(patch.replace(m.node(node).output(), y))
}
