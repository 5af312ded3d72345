//! DistilBERT: BERT with half of the layers, no types of tokens, and names of its own.

use super::{
    Activation, Architecture, Block, Embedding, Head, Linear, Mlp, Norm, Param, Places, Positions,
    Sublayer, bert,
    describe::{Shape, Source, Top},
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
    let shape = shape(source)?;
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
    let blocks = (0..shape.layers)
        .map(|layer| block(&shape, &format!("{prefix}transformer.layer.{layer}"), activation));
    Ok(Architecture {
        model_type: shape.model_type.clone(),
        hidden: shape.hidden,
        vocabulary: shape.vocabulary,
        context: shape.context,
        embedding,
        rotaries: Vec::new(),
        blocks: blocks.collect(),
        norm: None,
        head: head(source, shape.hidden)?,
        buffers: vec!["embeddings.position_ids", "vocab_*"],
    })
}

fn head(source: &Source, hidden: usize) -> Result<Head, CheckpointError> {
    if source.top != Top::Classes {
        return bert::head(source, hidden);
    }
    let dense = Linear::new("pre_classifier", [hidden, hidden], true);
    let out = Linear::new("classifier", [hidden, source.labels()?], true);
    Ok(Head::Classes { hidden: Some((dense, Activation::Relu)), out })
}

fn shape(source: &Source) -> Result<Shape, CheckpointError> {
    let config = source.config;
    let (hidden, heads) = (config.size("dim")?, config.size("n_heads")?);
    if !hidden.is_multiple_of(heads) {
        let problem = format!("dim {hidden} is no multiple of {heads} heads");
        return Err(CheckpointError::Contradiction { problem });
    }
    let shape = Shape {
        model_type: source.family.model_type.to_owned(),
        hidden,
        vocabulary: config.size("vocab_size")?,
        context: config.size_or("max_position_embeddings", 512)?,
        layers: config.size("n_layers")?,
        heads,
        kv_heads: heads,
        head_size: hidden / heads,
        inner: config.size("hidden_dim")?,
    };
    shape.checked()
}

fn block(shape: &Shape, name: &str, activation: Activation) -> Block {
    let Shape { hidden, inner, .. } = *shape;
    let linear = |it: &str, sizes| Linear::new(&format!("{name}.{it}"), sizes, true);
    let norm = |it: &str| Norm::layer(&format!("{name}.{it}"), hidden, EPSILON);
    let square = |it: &str| linear(&format!("attention.{it}"), [hidden, hidden]);
    let qkv = ["q_lin", "k_lin", "v_lin"].map(square);
    let attention = bert::full_attention(shape, qkv, square("out_lin"));
    let mlp = Mlp {
        gate: None,
        up: linear("ffn.lin1", [hidden, inner]),
        down: linear("ffn.lin2", [inner, hidden]),
        activation,
    };
    Block {
        attention: Sublayer::new(&format!("{name}.attention"), attention)
            .summed(norm("sa_layer_norm")),
        mlp: Sublayer::new(&format!("{name}.ffn"), mlp).summed(norm("output_layer_norm")),
    }
}
