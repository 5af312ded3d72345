//! BERT and what has its blocks: MiniLM, RoBERTa.

use super::{
    Activation, Architecture, Attention, Block, Embedding, Head, Linear, Mlp, Norm, Param,
    Positions, Qkv, Sublayer,
    describe::{Shape, Source, Top},
};
use crate::{CheckpointError, arch::Places};

pub(super) const CLASSES: &[(&str, Top)] = &[
    ("BertForSequenceClassification", Top::Classes),
    ("BertForTokenClassification", Top::TokenClasses),
    ("BertModel", Top::Vectors),
];

pub(super) fn describe(source: &Source) -> Result<Architecture, CheckpointError> {
    let prefix = source.prefix("bert.");
    let mut model = encoder(source, &prefix, Places::Counted)?;
    let hidden = model.hidden;
    model.head = match source.top {
        Top::Classes => {
            let pooler = Linear::new(&format!("{prefix}pooler.dense"), [hidden, hidden], true);
            let out = Linear::new("classifier", [hidden, source.labels()?], true);
            Head::Classes { hidden: Some((pooler, Activation::Tanh)), out }
        }
        _ => head(source, hidden)?,
    };
    if source.top != Top::Classes {
        model.buffers.extend(["pooler.dense.weight", "pooler.dense.bias"]);
    }
    Ok(model)
}

/// Heads that all encoders have in common.
pub(super) fn head(source: &Source, hidden: usize) -> Result<Head, CheckpointError> {
    Ok(match source.top {
        Top::TokenClasses => {
            Head::TokenClasses(Linear::new("classifier", [hidden, source.labels()?], true))
        }
        _ => source.vectors()?,
    })
}

/// Everything but the head.
pub(super) fn encoder(
    source: &Source,
    prefix: &str,
    from: Places,
) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    if config.text_or("position_embedding_type", "absolute")? != "absolute" {
        return Err(config.refuse("position_embedding_type"));
    }
    config.must_be("is_decoder", false)?;
    config.must_be("add_cross_attention", false)?;
    // Embeddings of BERT are as long as its vectors.
    config.ignore(&[
        "embedding_size",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "tie_word_embeddings",
    ]);
    let shape = super::common::shape(source, None)?;
    let epsilon = config.positive("layer_norm_eps")?;
    let activation = source.activation("hidden_act", "gelu")?;
    let table = |name: &str, rows: usize| {
        Param::new(format!("{prefix}embeddings.{name}.weight"), [rows, shape.hidden])
    };
    let embedding = Embedding {
        words: table("word_embeddings", shape.vocabulary),
        positions: Some(Positions { table: table("position_embeddings", shape.context), from }),
        types: Some(table("token_type_embeddings", config.size("type_vocab_size")?)),
        scale: None,
        norm: Some(Norm::layer(&format!("{prefix}embeddings.LayerNorm"), shape.hidden, epsilon)),
    };
    let name = |layer| format!("{prefix}encoder.layer.{layer}");
    let block = |layer| block(&shape, &PARTS, &name(layer), (activation, epsilon));
    let blocks = (0..shape.layers).map(block).collect();
    let mut model = Architecture::new(&shape, embedding, blocks, Head::Hidden);
    // The head of the training, `cls`, is none of ours.
    model.buffers =
        vec!["embeddings.position_ids", "embeddings.token_type_ids", "cls.*", "lm_head.*"];
    if source.weights.names().any(|it| it.ends_with("LayerNorm.gamma")) {
        rename_norms(&mut model);
    }
    Ok(model)
}

/// What a family calls the parts of a block.
pub(super) struct Parts {
    pub qkv: [&'static str; 3],
    pub out: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub mlp_norm: &'static str,
}

const PARTS: Parts = Parts {
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    mlp_norm: "output.LayerNorm",
};

/// The first checkpoints were converted from TensorFlow with its names.
fn rename_norms(architecture: &mut Architecture) {
    let sums = architecture.blocks.iter_mut().flat_map(|it| {
        [it.attention.sum_norm.as_mut(), it.mlp.sum_norm.as_mut()].into_iter().flatten()
    });
    for norm in sums.chain(&mut architecture.embedding.norm) {
        norm.weight.name = format!("{}.gamma", norm.name);
        norm.bias.iter_mut().for_each(|it| it.name = format!("{}.beta", norm.name));
    }
}

/// Attention between all tokens, a feed-forward part, and a norm after each sum.
pub(super) fn block(
    shape: &Shape,
    parts: &Parts,
    name: &str,
    (activation, epsilon): (Activation, f64),
) -> Block {
    let Shape { hidden, inner, .. } = *shape;
    let linear = |it: &str, sizes| Linear::new(&format!("{name}.{it}"), sizes, true);
    let norm = |it: &str| Norm::layer(&format!("{name}.{it}"), hidden, epsilon);
    let square = |it: &str| linear(it, [hidden, hidden]);
    let qkv = Qkv::Apart(parts.qkv.map(square).into());
    let attention = Attention::new(shape, qkv, square(parts.out));
    let mlp = Mlp {
        gate: None,
        up: linear(parts.up, [hidden, inner]),
        down: linear(parts.down, [inner, hidden]),
        activation,
    };
    Block {
        attention: Sublayer::new(&format!("{name}.attention"), attention)
            .summed(norm(parts.attention_norm)),
        mlp: Sublayer::new(&format!("{name}.mlp"), mlp).summed(norm(parts.mlp_norm)),
    }
}
