//! What is computed of the last vectors.

use super::{
    embed::{Inputs, tokens},
    graph::Graph,
};
use crate::arch::{Architecture, Head, Pooling};
use onnxq_ir::{
    Attrs, ValueId,
    tensor::{DType, Dim},
};

pub(super) fn head(graph: &mut Graph, architecture: &Architecture, x: ValueId, inputs: &Inputs) {
    let of_tokens = |last: usize| [tokens(), vec![Dim::Fixed(last)]].concat();
    match &architecture.head {
        Head::Tokens { weight, softcap } => {
            let logits = graph.linear(weight, x);
            let logits = match softcap {
                None => logits,
                Some(cap) => capped(graph, logits, *cap),
            };
            graph.output("logits", logits, of_tokens(architecture.vocabulary));
        }
        Head::Hidden => graph.output("last_hidden_state", x, of_tokens(architecture.hidden)),
        Head::Sentence { pooling, normalize } => {
            let text = pool(graph, *pooling, x, inputs);
            let text = if *normalize { unit(graph, text) } else { text };
            graph.output("token_embeddings", x, of_tokens(architecture.hidden));
            let dims = vec![tokens()[0].clone(), Dim::Fixed(architecture.hidden)];
            graph.output("sentence_embedding", text, dims);
        }
        Head::TokenClasses(out) => {
            let logits = graph.linear(out, x);
            graph.output("logits", logits, of_tokens(classes(out)));
        }
        Head::Classes { hidden, out } => {
            let mut text = first(graph, x);
            if let Some((linear, activation)) = hidden {
                text = graph.linear(linear, text);
                text = graph.activation(*activation, &format!("{}.activation", linear.name), text);
            }
            let logits = graph.linear(out, text);
            let dims = vec![tokens()[0].clone(), Dim::Fixed(classes(out))];
            graph.output("logits", logits, dims);
        }
    }
}

fn classes(out: &crate::arch::Linear) -> usize {
    out.weight.shape[0]
}

/// `cap · tanh(x / cap)`.
fn capped(graph: &mut Graph, x: ValueId, cap: f32) -> ValueId {
    let cap = graph.scalar("softcap", cap);
    let part = graph.node("Div", "softcap.part", [x, cap], Attrs::default());
    let tanh = graph.node("Tanh", "softcap.tanh", [part], Attrs::default());
    graph.node("Mul", "softcap.capped", [tanh, cap], Attrs::default())
}

/// The vector of the first token: `[batch, hidden]`.
fn first(graph: &mut Graph, x: ValueId) -> ValueId {
    let zero = graph.ints("zero", &[], &[0]);
    graph.node("Gather", "first_token", [x, zero], Attrs::default().with("axis", 1i64))
}

fn pool(graph: &mut Graph, pooling: Pooling, x: ValueId, inputs: &Inputs) -> ValueId {
    if pooling == Pooling::Cls {
        return first(graph, x);
    }
    let none = Attrs::default;
    let real = graph.cast("pooled_tokens", inputs.mask, DType::F32);
    let axis = graph.ints("two_list", &[1], &[2]);
    let real = graph.node("Unsqueeze", "pooled_token_column", [real, axis], none());
    let kept = graph.node("Mul", "pooled_vectors", [x, real], none());
    let axis = graph.ints("one_list", &[1], &[1]);
    let attrs = || none().with("keepdims", 0i64);
    let sum = graph.node("ReduceSum", "sum_of_tokens", [kept, axis], attrs());
    let count = graph.node("ReduceSum", "count_of_tokens", [real, axis], attrs());
    let least = graph.scalar("least_count", 1e-9);
    let count = graph.node("Max", "token_count", [count, least], none());
    graph.node("Div", "mean_of_tokens", [sum, count], none())
}

/// Of length 1.
fn unit(graph: &mut Graph, x: ValueId) -> ValueId {
    let axis = graph.ints("minus_one_list", &[1], &[-1]);
    let length = graph.node("ReduceL2", "embedding_length", [x, axis], Attrs::default());
    let least = graph.scalar("least_length", 1e-12);
    let length = graph.node("Max", "used_length", [length, least], Attrs::default());
    graph.node("Div", "unit_embedding", [x, length], Attrs::default())
}
