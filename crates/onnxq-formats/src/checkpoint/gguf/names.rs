//! What tensors and keys are called here and there.

use super::families::Family;

/// What frequencies of rotary embeddings are divided by.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The same of texts of both lengths.
pub(super) const LONG_ROPE: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Learnt vectors of places, which llama.cpp's converter writes as float32 whatever it makes of matrices.
pub(super) const PLACES: &str = "position_embd.weight";

/// The head over the vocabulary, in GGUF and in checkpoints.
const HEAD: (&str, &str) = ("output", "lm_head");

/// A key or a tensor of GGUF, and what Hugging Face calls it.
pub(super) type Name = (&'static str, &'static str);

/// What the checkpoints of a family call things.
pub(super) struct Spelling {
    /// Keys, without the architecture before them, and fields of `config.json`.
    pub fields: &'static [Name],
    /// What all tensors but the head begin with. Older checkpoints may lack it.
    prefix: &'static str,
    /// Tensors outside of blocks.
    top: &'static [Name],
    /// What stands before the number of a block.
    blocks: &'static str,
    /// Tensors of a block.
    block: &'static [Name],
    /// Whether matrices of blocks are stored with inputs in rows. In GGUF rows are outputs always.
    is_turned: bool,
}

/// Llama's, which most others took over.
pub(super) const LLAMA: Spelling = Spelling {
    fields: &[
        ("block_count", "num_hidden_layers"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("context_length", "max_position_embeddings"),
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("rope.freq_base", "rope_theta"),
    ],
    prefix: "model.",
    top: &[("token_embd", "embed_tokens"), ("output_norm", "norm")],
    blocks: "layers.",
    block: &[
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_qkv", "self_attn.qkv_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ],
    is_turned: false,
};

pub(super) const GPT2: Spelling = Spelling {
    fields: &[
        ("block_count", "n_layer"),
        ("embedding_length", "n_embd"),
        ("feed_forward_length", "n_inner"),
        ("attention.head_count", "n_head"),
        ("context_length", "n_positions"),
        ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
    ],
    prefix: "transformer.",
    top: &[("token_embd", "wte"), ("position_embd", "wpe"), ("output_norm", "ln_f")],
    blocks: "h.",
    block: &[
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.c_attn"),
        ("attn_output", "attn.c_proj"),
        ("ffn_norm", "ln_2"),
        ("ffn_up", "mlp.c_fc"),
        ("ffn_down", "mlp.c_proj"),
    ],
    is_turned: true,
};

/// Whether a tensor belongs to the configuration, not to the weights.
pub(super) fn is_factor(name: &str) -> bool {
    name == ROPE_FACTORS || LONG_ROPE.contains(&name)
}

/// Whether a matrix of a file is the transpose of the checkpoint's.
pub(super) fn is_turned(family: &Family, name: &str) -> bool {
    family.spelling.is_turned && name.starts_with("blk.")
}

/// What a checkpoint calls a tensor; one that no family has keeps its name, which then is said to be
/// used by nothing.
pub(super) fn of(family: &Family, name: &str) -> String {
    let Spelling { prefix, top, blocks, block, .. } = family.spelling;
    let Some((stem, end)) = name.rsplit_once('.') else { return name.to_owned() };
    if stem == HEAD.0 {
        return format!("{}.{end}", HEAD.1);
    }
    if let Some((_, ours)) = top.iter().find(|it| it.0 == stem) {
        return format!("{prefix}{ours}.{end}");
    }
    let inner = stem.strip_prefix("blk.").and_then(|it| it.split_once('.'));
    let own = |part: &str| family.names.iter().chain(*block).find(|it| it.0 == part).map(|it| it.1);
    match inner.and_then(|(layer, part)| Some((layer, own(part)?))) {
        Some((layer, ours)) => format!("{prefix}{blocks}{layer}.{ours}.{end}"),
        None => name.to_owned(),
    }
}

/// What GGUF calls a tensor of a checkpoint.
pub(super) fn to(family: &Family, name: &str) -> Option<String> {
    let Spelling { prefix, top, blocks, block, .. } = family.spelling;
    let (stem, end) = name.rsplit_once('.')?;
    if stem == HEAD.1 {
        return Some(format!("{}.{end}", HEAD.0));
    }
    let stem = stem.strip_prefix(prefix).unwrap_or(stem);
    if let Some((theirs, _)) = top.iter().find(|it| it.1 == stem) {
        return Some(format!("{theirs}.{end}"));
    }
    let (layer, part) = stem.strip_prefix(blocks)?.split_once('.')?;
    // A family's own name hides the usual one of the same tensor.
    let (theirs, _) = family.names.iter().chain(*block).find(|it| it.1 == part)?;
    let hidden = |it: &&Name| it.0 == *theirs;
    let first = family.names.iter().chain(*block).find(hidden)?;
    (first.1 == part).then(|| format!("blk.{layer}.{theirs}.{end}"))
}
