//! A `MatMul` of rows that were flattened for it takes them as they are.
//!
//! ```text
//! Reshape(Add(MatMul(Reshape(x, [-1, k]), w), b), [batch, length, n])      →      Add(MatMul(x, w), b)
//! ```
//!
//! Exporters write the `Conv1D` of GPT-2 this way, with the target computed from `Shape`.

use super::same_graph;
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match};

pub(super) const UNFLATTEN_MATMUL: Rule = Rule {
    name: "unflatten-matmul",
    help: "remove the Reshape before and after a MatMul of flattened rows",
    root: "Reshape",
    apply,
};

fn apply(m: &Model, reshape: NodeId) -> Result<Patch, NoMatch> {
    let (flat, y) = (m.operand(reshape, 0)?, m.node(reshape).output());
    let (product, bias) = match m.producer(flat, "Add") {
        Ok(add) => {
            let (matmul, bias) = m.either_operand(add, "MatMul")?;
            if m.constant(bias)?.shape.len() > 1 {
                return Err(no_match!("`{}` is no bias", m.value(bias).name));
            }
            m.only_use(flat)?;
            (matmul, Some(bias))
        }
        Err(_) => (m.producer(flat, "MatMul")?, None),
    };
    m.only_use(m.node(product).output())?;
    let (before, w) = (m.producer(m.operand(product, 0)?, "Reshape")?, m.operand(product, 1)?);
    for it in [product, before] {
        same_graph(m, it, reshape)?;
    }
    let x = m.operand(before, 0)?;
    fits(m, x, w, y)?;
    let mut patch = Patch::before(reshape);
    let name = &m.node(product).name;
    let out = if bias.is_some() { m.node(product).output() } else { y };
    let inputs = [x.into(), w.into()];
    let mut new = patch.named(name, &m.value(out).name, "MatMul", inputs, Attrs::default());
    if let Some(bias) = bias {
        let name = &m.node(reshape).name;
        new = patch.node(name, "Add", [new, bias.into()], Attrs::default());
    }
    Ok(patch.replace(y, new))
}

/// `x` is `[…, k]`, the weight `[k, n]` and the result `[…, n]`.
fn fits(m: &Model, x: ValueId, w: ValueId, y: ValueId) -> Result<(), NoMatch> {
    let ([before @ .., k], [after @ .., n]) = (&m.shape(x)?[..], &m.shape(y)?[..]) else {
        return Err(no_match!("`{}` is a scalar", m.value(x).name));
    };
    let rows =
        before.len() == after.len() && before.iter().zip(after).all(|(a, b)| a.surely_equals(b));
    match m.constant(w)?.shape[..] {
        [rows_of_w, columns]
            if rows && k.fixed() == Some(rows_of_w) && n.fixed() == Some(columns) =>
        {
            Ok(())
        }
        _ => Err(no_match!("`{}` has other rows than `{}`", m.value(y).name, m.value(x).name)),
    }
}
