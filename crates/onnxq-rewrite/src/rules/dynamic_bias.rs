//! A bias behind `DynamicQuantizeMatMul` becomes its last input.
//!
//! ONNX Runtime moves a bias into the operator that it makes itself, not into one that is there.

use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match};

pub(super) const DYNAMIC_BIAS: Rule = Rule {
    name: "dynamic-bias",
    help: "move the Add of a bias into DynamicQuantizeMatMul",
    root: OP,
    apply,
};

const OP: &str = "com.microsoft.DynamicQuantizeMatMul";

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let it = m.node(node);
    if m.operand(node, 4).is_ok() {
        return Err(no_match!("it has a bias"));
    }
    let add = m.only_use(it.output())?;
    if !m.node(add).op.is("Add") {
        return Err(no_match!("`{}` feeds {}, not Add", m.value(it.output()).name, m.node(add).op));
    }
    super::same_graph(m, node, add)?;
    let (_, bias) = m.either_operand(add, OP)?;
    let columns = m.constant(m.operand(node, 1)?)?.shape.last().copied();
    if m.constant(bias)?.shape.len() != 1 || m.constant(bias)?.shape.last().copied() != columns {
        return Err(no_match!("`{}` is no bias of the columns", m.value(bias).name));
    }
    let mut inputs: Vec<Ref> = it.inputs.iter().map(|it| it.map_or(Ref::None, Ref::from)).collect();
    inputs.resize(4, Ref::None);
    inputs.push(bias.into());
    let mut patch = Patch::before(add);
    let y = patch.named(&it.name, "y", OP, inputs, Attrs::default());
    Ok(patch.replace(m.node(add).output(), y))
}
