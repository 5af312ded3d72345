//! DistilBERT: BERT with half of the layers, no types of tokens, and names of its own.

use super::{
    Activation, Architecture, Embedding, Head, Linear, Norm, Param, Places, Positions,
    bert::{self, Parts},
    common::{self, Names},
    describe::{Source, Top},
};
use crate::CheckpointError;

pub(super) const CLASSES: &[(&str, Top)] = &[
    ("DistilBertForSequenceClassification", Top::Classes),
    ("DistilBertForTokenClassification", Top::TokenClasses),
    ("DistilBertModel", Top::Vectors),
];

/// Fixed in the code of the model.
const EPSILON: f64 = 1e-12;

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    // Whether the table of places was made of sines: it is stored like any other.
    config.ignore(&["sinusoidal_pos_embds", "tie_weights_", "tie_word_embeddings"]);
    let shape = common::simple_shape(source, &NAMES)?;
    let activation = source.activation("activation", "gelu")?;
    let prefix = source.prefix("distilbert.");
    let table = |name: &str, rows: usize| {
        Param::new(format!("{prefix}embeddings.{name}.weight"), [rows, shape.hidden])
    };
    let places = table("position_embeddings", shape.context);
    let embedding = Embedding {
        words: table("word_embeddings", shape.vocabulary),
        positions: Some(Positions { table: places, from: Places::Counted }),
        types: None,
        scale: None,
        norm: Some(Norm::layer(&format!("{prefix}embeddings.LayerNorm"), shape.hidden, EPSILON)),
    };
    let name = |layer| format!("{prefix}transformer.layer.{layer}");
    let block = |layer| bert::block(&shape, &PARTS, &name(layer), (activation, EPSILON));
    let blocks = (0..shape.layers).map(block).collect();
    let mut model = Architecture::new(&shape, embedding, blocks, head(source, shape.hidden)?);
    model.buffers = vec!["embeddings.position_ids", "vocab_*"];
    Ok(model)
}

fn head(source: &Source, hidden: usize) -> Result<Head, CheckpointError> {
    if source.top != Top::Classes {
        return bert::head(source, hidden);
    }
    let dense = Linear::new("pre_classifier", [hidden, hidden], true);
    let out = Linear::new("classifier", [hidden, source.labels()?], true);
    Ok(Head::Classes { hidden: Some((dense, Activation::Relu)), out })
}

const NAMES: Names = Names {
    hidden: "dim",
    heads: "n_heads",
    layers: "n_layers",
    inner: ("hidden_dim", None),
    context: "max_position_embeddings",
};

const PARTS: Parts = Parts {
    qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    mlp_norm: "output_layer_norm",
};
