//! Which keys a query sees, as what is added to their products: 0, or the lowest float.

use super::{embed::Inputs, graph::Graph};
use onnxq_ir::{Attrs, ValueId, tensor::DType};

/// Number of tokens that go in, as one number.
pub(super) fn length(graph: &mut Graph, inputs: &Inputs) -> ValueId {
    let list = graph.length("length_list", inputs.ids, 1);
    graph.squeeze("length", list)
}

/// Where the mask says that there is no padding: `[batch, 1, 1, keys]`.
fn real_keys(graph: &mut Graph, inputs: &Inputs) -> ValueId {
    let real = graph.cast("real_tokens", inputs.mask, DType::Bool);
    let axes = graph.ints("mask_axes", &[2], &[1, 2]);
    graph.node("Unsqueeze", "real_keys", [real, axes], Attrs::default())
}

fn additive(graph: &mut Graph, name: &str, seen: ValueId) -> ValueId {
    let zero = graph.scalar("seen_bias", 0.0);
    // Not infinite: a row of padding that sees nothing would be NaN.
    let lowest = graph.scalar("unseen_bias", f32::MIN);
    graph.node("Where", name, [seen, zero, lowest], Attrs::default())
}

/// For encoders: every token sees all that are no padding. `[batch, 1, queries, keys]`.
pub(super) fn full(graph: &mut Graph, inputs: &Inputs) -> ValueId {
    let seen = real_keys(graph, inputs);
    let mask = additive(graph, "mask_row", seen);
    // The kernel does not repeat rows itself.
    let (ones, one) = (graph.ints("ones", &[2], &[1, 1]), graph.ints("one_list", &[1], &[1]));
    let length = graph.length("length_list", inputs.ids, 1);
    let attrs = Attrs::default().with("axis", 0i64);
    let shape = graph.node("Concat", "mask_shape", [ones, length, one], attrs);
    graph.node("Expand", "mask", [mask, shape], Attrs::default())
}

/// Places of queries and of keys among all tokens, those of the past first.
pub(super) struct Causal {
    keys: ValueId,
    /// `[queries, 1]`.
    queries: ValueId,
    /// Neither later nor padding: `[batch, 1, queries, keys]`.
    seen: ValueId,
}

impl Causal {
    pub(super) fn new(graph: &mut Graph, inputs: &Inputs) -> Causal {
        let none = Attrs::default;
        let length = length(graph, inputs);
        let total = graph.length("total_list", inputs.mask, 1);
        let total = graph.squeeze("total", total);
        let first = graph.node("Sub", "first_query", [total, length], none());
        let (zero, one) = (graph.ints("zero", &[], &[0]), graph.ints("one", &[], &[1]));
        let keys = graph.node("Range", "keys", [zero, total, one], none());
        let queries = graph.node("Range", "queries", [first, total, one], none());
        let axis = graph.ints("one_list", &[1], &[1]);
        let queries = graph.node("Unsqueeze", "query_rows", [queries, axis], none());
        let causal = graph.node("LessOrEqual", "causal", [keys, queries], none());
        let real = real_keys(graph, inputs);
        let seen = graph.node("And", "seen", [causal, real], none());
        Causal { keys, queries, seen }
    }

    /// The mask of layers that see everything before, or `window` keys.
    pub(super) fn mask(&self, graph: &mut Graph, window: Option<usize>) -> ValueId {
        let Some(window) = window else { return additive(graph, "mask", self.seen) };
        let none = Attrs::default;
        let size = graph.ints("window", &[], &[window as i64]);
        let before =
            graph.node("Sub", &format!("before_window_{window}"), [self.queries, size], none());
        let near = graph.node("Greater", &format!("near_{window}"), [self.keys, before], none());
        let seen = graph.node("And", &format!("seen_{window}"), [self.seen, near], none());
        additive(graph, &format!("mask_{window}"), seen)
    }
}
