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
    let mut model = Architecture {
        model_type: shape.model_type.clone(),
        hidden: shape.hidden,
        vocabulary: shape.vocabulary,
        context: shape.context,
        embedding,
        rotaries: Vec::new(),
        blocks: blocks(&shape, prefix, (activation, epsilon)),
        norm: None,
        head: Head::Hidden,
        // The head of the training, `cls`, is none of ours.
        buffers: vec!["embeddings.position_ids", "embeddings.token_type_ids", "cls.*", "lm_head.*"],
    };
    if source.weights.names().any(|it| it.ends_with("LayerNorm.gamma")) {
        rename_norms(&mut model);
    }
    Ok(model)
}

fn blocks(shape: &Shape, prefix: &str, of: (Activation, f64)) -> Vec<Block> {
    let name = |layer| format!("{prefix}encoder.layer.{layer}");
    (0..shape.layers).map(|it| block(shape, &name(it), of)).collect()
}

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

fn block(shape: &Shape, name: &str, (activation, epsilon): (Activation, f64)) -> Block {
    let Shape { hidden, inner, .. } = *shape;
    let linear = |it: &str, sizes| Linear::new(&format!("{name}.{it}"), sizes, true);
    let norm = |it: &str| Norm::layer(&format!("{name}.{it}"), hidden, epsilon);
    let square = |it: &str| linear(it, [hidden, hidden]);
    let qkv = ["query", "key", "value"].map(|it| square(&format!("attention.self.{it}")));
    let attention = full_attention(shape, qkv, square("attention.output.dense"));
    let mlp = Mlp {
        gate: None,
        up: linear("intermediate.dense", [hidden, inner]),
        down: linear("output.dense", [inner, hidden]),
        activation,
    };
    Block {
        attention: Sublayer::new(&format!("{name}.attention"), attention)
            .summed(norm("attention.output.LayerNorm")),
        mlp: Sublayer::new(&format!("{name}.output"), mlp).summed(norm("output.LayerNorm")),
    }
}

/// Attention between all tokens.
pub(super) fn full_attention(shape: &Shape, qkv: [Linear; 3], out: Linear) -> Attention {
    Attention {
        qkv: Qkv::Apart(qkv.into()),
        out,
        q_norm: None,
        k_norm: None,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_size: shape.head_size,
        scale: (shape.head_size as f32).powf(-0.5),
        softcap: None,
        window: None,
        rotary: None,
    }
}
