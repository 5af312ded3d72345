//! The graph of an architecture, in the forms that ONNX Runtime runs fast: what `rewrite::STANDARD`
//! would make of an exporter's thousand nodes, made at once.

mod block;
mod embed;
mod graph;
mod head;
mod mask;
mod rotary;

use onnxq_ir::{Model, onnx::Loaded};

use self::graph::Graph;
pub(crate) use self::graph::raised;
use crate::{Checkpoint, CheckpointError};

/// How attention is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `Attention` and `RotaryEmbedding` of the standard, with any mask, places and batches;
    /// the faster one where keys and values are copied at each step, as most clients do.
    Standard,
    /// `com.microsoft.GroupQueryAttention` with rotary embeddings and windows inside, whose client
    /// binds one buffer for past and present: what onnxruntime-genai expects. Decoders only.
    GroupQuery,
}

/// What stands in [`Model::metadata`] for the kind of checkpoint that a model was made of.
const MODEL_TYPE: &str = "onnxq.model_type";

/// The graph of a checkpoint, its weights mapped where they lie.
pub fn build(checkpoint: &Checkpoint, form: Form) -> Result<Loaded, CheckpointError> {
    let model = model(checkpoint, form);
    Ok(Loaded { model, warnings: Vec::new(), files: checkpoint.files.clone() })
}

fn model(checkpoint: &Checkpoint, form: Form) -> Model {
    let architecture = &checkpoint.architecture;
    let mut graph = Graph::new(&checkpoint.weights, &architecture.model_type);
    let inputs = embed::Inputs::new(&mut graph, architecture, form);
    let mut x = embed::embed(&mut graph, architecture, &inputs);
    let shared = block::Shared::new(&mut graph, architecture, &inputs, form);
    let mut presents = Vec::new();
    for (layer, it) in architecture.blocks.iter().enumerate() {
        let present;
        (x, present) = block::block(&mut graph, it, x, &shared.of(layer));
        presents.extend(present);
    }
    if let Some(norm) = &architecture.norm {
        x = graph.norm(norm, x);
    }
    head::head(&mut graph, architecture, x, &inputs);
    embed::presents(&mut graph, architecture, &presents);
    graph.finish()
}
