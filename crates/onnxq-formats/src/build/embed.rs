//! What goes in: ids of tokens, masks, places, the past.

use super::{Form, graph::Graph, mask};
use crate::arch::{Architecture, Attention, Param, Places, Positions};
use onnxq_ir::{
    Attrs, ValueId,
    tensor::{DType, Dim},
};

/// Inputs of the graph, called as optimum calls them.
pub(super) struct Inputs {
    pub(super) ids: ValueId,
    pub(super) mask: ValueId,
    /// Types of tokens; places of tokens, where the graph does not count them.
    types: Option<ValueId>,
    pub(super) places: Option<ValueId>,
    /// Keys and values of each layer.
    pub(super) past: Vec<[ValueId; 2]>,
}

fn symbol(name: &str) -> Dim {
    Dim::Symbol(name.into())
}

/// `[batch_size, sequence_length]`.
pub(super) fn tokens() -> Vec<Dim> {
    vec![symbol("batch_size"), symbol("sequence_length")]
}

impl Inputs {
    pub(super) fn new(graph: &mut Graph, architecture: &Architecture, form: Form) -> Inputs {
        let ids = graph.input("input_ids", DType::I64, tokens());
        let mask = match architecture.is_decoder() {
            true => {
                let total = total(form);
                graph.input("attention_mask", DType::I64, vec![symbol("batch_size"), total])
            }
            false => graph.input("attention_mask", DType::I64, tokens()),
        };
        let rotates = !architecture.rotaries.is_empty() && form == Form::Standard;
        let positions = architecture.embedding.positions.as_ref();
        let asks = rotates || positions.is_some_and(|it| it.from == Places::Given);
        let places = asks.then(|| graph.input("position_ids", DType::I64, tokens()));
        let has_types = architecture.embedding.types.as_ref().is_some_and(|it| it.shape[0] > 1);
        let types = has_types.then(|| graph.input("token_type_ids", DType::I64, tokens()));
        let past = if architecture.is_decoder() { past(graph, architecture) } else { Vec::new() };
        Inputs { ids, mask, types, places, past }
    }
}

/// Declares keys and values of each layer as outputs.
pub(super) fn presents(graph: &mut Graph, architecture: &Architecture, list: &[[ValueId; 2]]) {
    for (layer, (pair, block)) in list.iter().zip(&architecture.blocks).enumerate() {
        let embedding = &block.attention.body;
        for (name, value) in ["key", "value"].into_iter().zip(pair) {
            let dims = cache_dims(embedding, "total_sequence_length");
            graph.output(&format!("present.{layer}.{name}"), *value, dims);
        }
    }
}

/// `[batch_size, kv_heads, length, head_size]`.
fn cache_dims(attention: &Attention, length: &str) -> Vec<Dim> {
    vec![
        symbol("batch_size"),
        Dim::Fixed(attention.kv_heads),
        symbol(length),
        Dim::Fixed(attention.head_size),
    ]
}

/// Length of the past and of what is new, together.
fn total(form: Form) -> Dim {
    match form {
        Form::Standard => symbol("past_sequence_length + sequence_length"),
        Form::GroupQuery => symbol("total_sequence_length"),
    }
}

fn past(graph: &mut Graph, architecture: &Architecture) -> Vec<[ValueId; 2]> {
    let mut list = Vec::new();
    for (layer, block) in architecture.blocks.iter().enumerate() {
        let embedding = &block.attention.body;
        list.push(["key", "value"].map(|name| {
            let dims = cache_dims(embedding, "past_sequence_length");
            graph.input(&format!("past_key_values.{layer}.{name}"), DType::F32, dims)
        }));
    }
    list
}

/// The first vectors: `[batch, sequence, hidden]`.
pub(super) fn embed(graph: &mut Graph, architecture: &Architecture, inputs: &Inputs) -> ValueId {
    let embedding = &architecture.embedding;
    let mut x = look_up(graph, &embedding.words, inputs.ids);
    if let Some(scale) = embedding.scale {
        let scale = graph.scalar("embedding_scale", scale);
        x = graph.node("Mul", "embedding", [x, scale], Attrs::default());
    }
    if let Some(types) = &embedding.types {
        let types = match inputs.types {
            Some(ids) => look_up(graph, types, ids),
            // One type: its vector is added to all.
            None => graph.param(types),
        };
        x = graph.node("Add", "embedding_with_types", [x, types], Attrs::default());
    }
    if let Some(positions) = &embedding.positions {
        let ids = places(graph, positions, inputs);
        let places = look_up(graph, &positions.table, ids);
        x = graph.node("Add", "embedding_with_places", [x, places], Attrs::default());
    }
    match &embedding.norm {
        Some(norm) => graph.norm(norm, x),
        None => x,
    }
}

fn look_up(graph: &mut Graph, table: &Param, ids: ValueId) -> ValueId {
    let name = table.name.strip_suffix(".weight").unwrap_or(&table.name).to_owned();
    let table = graph.param(table);
    graph.node("Gather", &name, [table, ids], Attrs::default())
}

fn places(graph: &mut Graph, positions: &Positions, inputs: &Inputs) -> ValueId {
    let none = Attrs::default;
    match positions.from {
        Places::Given => inputs.places.expect("an input where places are given"),
        Places::Counted => {
            let length = mask::length(graph, inputs);
            let (zero, one) = (graph.ints("zero", &[], &[0]), graph.ints("one", &[], &[1]));
            graph.node("Range", "places", [zero, length, one], none())
        }
        Places::Unpadded { padding } => {
            let padding = graph.ints("padding", &[], &[padding as i64]);
            let is_padding = graph.node("Equal", "is_padding", [inputs.ids, padding], none());
            let is_real = graph.node("Not", "is_real", [is_padding], none());
            let real = graph.cast("real", is_real, DType::I64);
            let axis = graph.ints("one", &[], &[1]);
            let counted = graph.node("CumSum", "counted", [real, axis], none());
            let counted = graph.node("Mul", "counted_real", [counted, real], none());
            graph.node("Add", "places", [counted, padding], none())
        }
    }
}
