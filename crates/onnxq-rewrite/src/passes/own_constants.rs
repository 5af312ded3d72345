//! A body of an `If`, `Loop` or `Scan` gets its own copy of a quantized weight that it reads from outside.
//!
//! ONNX Runtime (1.31 and 1.32, seen) makes `MatMulNBits` of `DequantizeLinear` and the `MatMul` behind it,
//! and looks for the quantized values, scales and zero points in the body alone: a model whose body
//! reads them from the graph around it does not load.
//!
//! ```text
//! w                                        If {
//! If { MatMul(x, DequantizeLinear(w)) }    →    w' ; MatMul(x, DequantizeLinear(w')) }
//! ```

use std::collections::BTreeMap;

use crate::{Pass, PassError, trace};
use onnxq_ir::{GraphId, Model, NodeId, User, ValueId, ctx::Ctx, ops::Traits};

pub(super) const OWN_CONSTANTS: Pass = Pass {
    name: "own-constants",
    help: "give bodies their own copies of quantized weights that ONNX Runtime looks for in them",
    limited: true,
    run,
};

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut copies: BTreeMap<(GraphId, ValueId), ValueId> = BTreeMap::new();
    for (node, index, value) in foreign(model) {
        let graph = model.node(node).graph;
        if copies.len() == ctx.max_rewrites && !copies.contains_key(&(graph, value)) {
            break;
        }
        let own = match copies.get(&(graph, value)) {
            Some(own) => *own,
            None => {
                let Ok(tensor) = model.constant(value).cloned() else { continue };
                let name = model.value(value).name.to_string();
                if ctx.trace.is_some() {
                    trace(ctx, OWN_CONSTANTS.name, &name, "copied into the body that reads it");
                }
                let own = model.add_constant(graph, &name, tensor);
                copies.insert((graph, value), own);
                own
            }
        };
        model.set_input(node, index, Some(own));
    }
    Ok(copies.len())
}

/// `(node, input, constant)`: what nodes of bodies dequantize for a product and is a constant of another
/// graph.
fn foreign(m: &Model) -> Vec<(NodeId, usize, ValueId)> {
    let bodies = m.graphs().into_iter().filter(|it| *it != m.main && m.in_main(*it));
    let mut found = Vec::new();
    for graph in bodies {
        for node in m.nodes_of(graph) {
            if !m.node(node).op.has(Traits::DEQUANTIZE) || !is_multiplied(m, node) {
                continue;
            }
            let inputs = m.node(node).inputs.iter().enumerate();
            let is_foreign =
                |it: &ValueId| m.constant(*it).is_ok() && !m.graph(graph).constants.contains(it);
            found.extend(
                inputs.filter_map(|(at, value)| {
                    value.filter(is_foreign).map(|value| (node, at, value))
                }),
            );
        }
    }
    found
}

fn is_multiplied(m: &Model, node: NodeId) -> bool {
    let readers = m.value(m.node(node).output()).uses.iter();
    readers.into_iter().any(|it| match it.user {
        User::Node(user) => m.node(user).op.is("MatMul"),
        User::Annotation(_) | User::Output(_) => false,
    })
}
