//! What a loop carries and never changes is read from around the loop.
//!
//! ```text
//! y… = Loop(n, go, w, h)   body(i, go, w', h'): … MatMul(h', w') … → go, w', …
//!                                    →
//! y… = Loop(n, go, h)      body(i, go, h'):     … MatMul(h', w) …  → go, …
//! ```
//!
//! tf2onnx passes the weights of a recurrent Keras layer through its loop in this way. A body sees the
//! values around it, so nothing is lost, and a weight that is a constant again can be quantized.

use crate::{Pass, PassError, nodes_in_main, trace};
use onnxq_ir::{GraphId, Model, NodeId, User, ValueId, ctx::Ctx};

pub(super) const HOIST_LOOP_STATE: Pass = Pass {
    name: "hoist-loop-state",
    help: "let the body of a Loop read what it carries unchanged from around the loop",
    limited: true,
    run,
};

/// Inputs of a `Loop` before what it carries: the trip count and the condition. A body has as many.
const BEFORE: usize = 2;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let mut hoisted = 0;
    for node in nodes_in_main(model) {
        while hoisted < ctx.max_rewrites
            && let Some(state) = unchanged(model, node)
        {
            let name = model.value(state.outside).name.to_string();
            trace(ctx, HOIST_LOOP_STATE.name, &model.node_label(node), &format!("hoisted {name}"));
            hoist(model, node, &state);
            hoisted += 1;
        }
    }
    Ok(hoisted)
}

/// A value that a loop carries unchanged.
struct State {
    body: GraphId,
    /// Which of those that it carries.
    index: usize,
    outside: ValueId,
    inside: ValueId,
}

/// The first value that a loop carries unchanged, and that the model's caller does not fetch from it.
fn unchanged(m: &Model, node: NodeId) -> Option<State> {
    if !m.is_live(node) || !m.node(node).op.is("Loop") {
        return None;
    }
    let body = m.node(node).attrs.get("body")?.as_graph()?;
    let (graph, it) = (m.graph(body), m.node(node));
    let carried = it.inputs.len().checked_sub(BEFORE)?;
    (0..carried).find_map(|index| {
        let inside = *graph.inputs.get(BEFORE + index)?;
        // A body returns the condition first.
        let returned = *graph.outputs.get(1 + index)?;
        let outside = it.inputs[BEFORE + index]?;
        let is_fetched = it.outputs.get(index).is_some_and(|it| m.is_output(*it));
        let is_annotated = m.value(inside).uses.iter().any(|it| is_annotation(it.user));
        let is_hoisted = inside == returned && !is_fetched && !is_annotated;
        is_hoisted.then_some(State { body, index, outside, inside })
    })
}

fn is_annotation(user: User) -> bool {
    matches!(user, User::Annotation(_))
}

fn hoist(m: &mut Model, node: NodeId, state: &State) {
    m.take_graph_output(state.body, 1 + state.index);
    m.replace_all_uses(state.inside, state.outside);
    m.take_graph_input(state.body, state.inside);
    m.take_input(node, BEFORE + state.index);
    // A loop may leave its last outputs out.
    if let Some(&after) = m.node(node).outputs.get(state.index) {
        m.replace_all_uses(after, state.outside);
        m.take_output(node, state.index);
    }
}
