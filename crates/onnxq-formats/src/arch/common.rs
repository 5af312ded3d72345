//! What decoders after Llama share.

use super::{
    Activation, Architecture, Attention, Block, Embedding, Linear, Mlp, Norm, Param, Qkv, Sublayer,
    describe::{Shape, Source},
    rotary,
};
use crate::CheckpointError;

/// Fields that change nothing that a forward pass computes: training, generation, bookkeeping.
pub(super) const NEUTRAL: &[&str] = &[
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "classifier_dropout",
    "cls_token_id",
    "dropout",
    "dtype",
    "embd_pdrop",
    "embedding_dropout",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "mlp_dropout",
    "model_type",
    "num_labels",
    "output_past",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "qa_dropout",
    "resid_pdrop",
    "seq_classif_dropout",
    "sep_token_id",
    "sinusoidal_pos_embds",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
];

/// What a family calls its sizes.
pub(super) struct Names {
    pub hidden: &'static str,
    pub heads: &'static str,
    pub layers: &'static str,
    /// Of the feed-forward part; what it is if the file does not say, as a multiple of `hidden`.
    pub inner: (&'static str, Option<usize>),
    pub context: &'static str,
}

/// As Llama and most others do.
const USUAL: Names = Names {
    hidden: "hidden_size",
    heads: "num_attention_heads",
    layers: "num_hidden_layers",
    inner: ("intermediate_size", None),
    context: "max_position_embeddings",
};

/// Sizes under the usual names, with heads of a size of their own and shared keys and values.
pub(super) fn shape(
    source: &Source,
    default_head: Option<usize>,
) -> Result<Shape, CheckpointError> {
    let config = source.config;
    let heads = config.size(USUAL.heads)?;
    let kv_heads = config.size_or("num_key_value_heads", heads)?;
    let head_size = config.size_if("head_dim")?.or(default_head);
    named_shape(source, &USUAL, (kv_heads, head_size))
}

/// Sizes under other names; heads share the whole width.
pub(super) fn simple_shape(source: &Source, names: &Names) -> Result<Shape, CheckpointError> {
    named_shape(source, names, (source.config.size(names.heads)?, None))
}

fn named_shape(
    source: &Source,
    names: &Names,
    (kv_heads, head_size): (usize, Option<usize>),
) -> Result<Shape, CheckpointError> {
    let config = source.config;
    let (hidden, heads) = (config.size(names.hidden)?, config.size(names.heads)?);
    let head_size = match head_size {
        Some(it) => it,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let problem = format!("{} {hidden} is no multiple of {heads} heads", names.hidden);
            return Err(CheckpointError::Contradiction { problem });
        }
    };
    let (inner, times) = names.inner;
    let inner = match times {
        Some(times) => config.size_or(inner, times * hidden)?,
        None => config.size(inner)?,
    };
    let shape = Shape {
        model_type: source.family.model_type.to_owned(),
        hidden,
        vocabulary: config.size("vocab_size")?,
        context: config.size_or(names.context, DEFAULT_CONTEXT)?,
        layers: config.size(names.layers)?,
        heads,
        kv_heads,
        head_size,
        inner,
    };
    shape.checked()
}

/// Old files of Llama do not state theirs. Where the context is the length of a table, a wrong one
/// does not fit the table.
const DEFAULT_CONTEXT: usize = 2048;

/// How a decoder differs from Llama.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    /// Of queries, keys and values; of the product after attention.
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    pub activation: Activation,
    pub rope_base: f64,
    /// Of layers that see everything, where newer files tell kinds of layers apart.
    pub layer_type: Option<&'static str>,
    /// Whether the head is the table of words, if the file does not say.
    pub tied: bool,
}

/// Llama itself.
pub(super) const LLAMA: Variant = Variant {
    qkv_bias: false,
    out_bias: false,
    mlp_bias: false,
    activation: Activation::Silu,
    rope_base: 10_000.0,
    layer_type: None,
    tied: false,
};

/// The parts of a decoder of Llama's kind, for its family to change.
pub(super) fn decoder(
    source: &Source,
    shape: &Shape,
    variant: &Variant,
) -> Result<Architecture, CheckpointError> {
    let config = source.config;
    let epsilon = config.positive("rms_norm_eps")?;
    let words = Param::new("model.embed_tokens.weight", [shape.vocabulary, shape.hidden]);
    let rotary = rotary::read(config, shape, variant.layer_type, variant.rope_base)?;
    let tied = config.flag_or("tie_word_embeddings", variant.tied)?;
    let blocks = (0..shape.layers).map(|it| block(shape, variant, epsilon, it)).collect();
    let head = source.tokens(&words, ("lm_head", tied), None);
    let mut model = Architecture::new(shape, Embedding::of_words(words), blocks, head);
    model.rotaries.push(rotary);
    model.norm = Some(Norm::rms("model.norm", shape.hidden, epsilon));
    model.buffers.push("rotary_emb.inv_freq");
    // Where a file holds it nevertheless, the table counts.
    model.buffers.extend(tied.then_some("lm_head.weight"));
    Ok(model)
}

fn block(shape: &Shape, variant: &Variant, epsilon: f64, layer: usize) -> Block {
    let name = format!("model.layers.{layer}");
    let (before, after) =
        (format!("{name}.input_layernorm"), format!("{name}.post_attention_layernorm"));
    let attention = attention(shape, variant, &format!("{name}.self_attn"));
    let mlp = mlp(shape, variant, &format!("{name}.mlp"));
    Block {
        attention: Sublayer::new(&format!("{name}.self_attn"), attention).after(Norm::rms(
            &before,
            shape.hidden,
            epsilon,
        )),
        mlp: Sublayer::new(&format!("{name}.mlp"), mlp).after(Norm::rms(
            &after,
            shape.hidden,
            epsilon,
        )),
    }
}

fn attention(shape: &Shape, variant: &Variant, name: &str) -> Attention {
    let Shape { hidden, heads, kv_heads, head_size, .. } = *shape;
    let linear = |it: &str, heads: usize| {
        Linear::new(&format!("{name}.{it}"), [hidden, heads * head_size], variant.qkv_bias)
    };
    let qkv = [linear("q_proj", heads), linear("k_proj", kv_heads), linear("v_proj", kv_heads)];
    let out = Linear::new(&format!("{name}.o_proj"), [heads * head_size, hidden], variant.out_bias);
    Attention { rotary: Some(0), ..Attention::new(shape, Qkv::Apart(qkv.into()), out) }
}

fn mlp(shape: &Shape, variant: &Variant, name: &str) -> Mlp {
    let Shape { hidden, inner, .. } = *shape;
    let linear = |it: &str, sizes| Linear::new(&format!("{name}.{it}"), sizes, variant.mlp_bias);
    Mlp {
        gate: Some(linear("gate_proj", [hidden, inner])),
        up: linear("up_proj", [hidden, inner]),
        down: linear("down_proj", [inner, hidden]),
        activation: variant.activation,
    }
}

/// Queries and keys are normed, head by head.
pub(super) fn norm_heads(block: &mut Block, norm: impl Fn(&str) -> Norm) {
    let name = block.attention.name.clone();
    let attention = &mut block.attention.body;
    attention.q_norm = Some(norm(&format!("{name}.q_norm")));
    attention.k_norm = Some(norm(&format!("{name}.k_norm")));
}

/// Which layers see a window only: as `layer_types` says, if the file has it, or else `is_local`.
pub(super) fn local_layers(
    source: &Source,
    layers: usize,
    is_local: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, CheckpointError> {
    let config = source.config;
    let Some(types) = config.texts_if("layer_types")? else {
        return Ok((0..layers).map(is_local).collect());
    };
    if types.len() != layers {
        return Err(config.wrong("layer_types", format!("must have {layers} entries")));
    }
    let is_local = |it: &String| match &**it {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        _ => Err(config.refuse("layer_types")),
    };
    types.iter().map(is_local).collect()
}

/// Gives local layers their window.
pub(super) fn set_windows(architecture: &mut Architecture, local: &[bool], window: Option<usize>) {
    for (block, is_local) in architecture.blocks.iter_mut().zip(local) {
        block.attention.body.window = window.filter(|_| *is_local);
    }
}
