//! What tensors are called here and there.

use super::families::Family;

/// What frequencies of rotary embeddings are divided by.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
/// The same of texts of both lengths.
pub(super) const LONG_ROPE: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Outside of blocks.
const TOP: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// In a block of every family.
const BLOCK: &[(&str, &str)] = &[
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
];

/// Whether a tensor belongs to the configuration, not to the weights.
pub(super) fn is_factor(name: &str) -> bool {
    name == ROPE_FACTORS || LONG_ROPE.contains(&name)
}

/// What a checkpoint calls a tensor; one that no family has keeps its name, which then is said to be
/// used by nothing.
pub(super) fn of(family: &Family, name: &str) -> String {
    let Some((stem, end)) = name.rsplit_once('.') else { return name.to_owned() };
    if let Some((_, ours)) = TOP.iter().find(|it| it.0 == stem) {
        return format!("{ours}.{end}");
    }
    let inner = stem.strip_prefix("blk.").and_then(|it| it.split_once('.'));
    let own = |part: &str| family.names.iter().chain(BLOCK).find(|it| it.0 == part).map(|it| it.1);
    match inner.and_then(|(layer, part)| Some((layer, own(part)?))) {
        Some((layer, ours)) => format!("model.layers.{layer}.{ours}.{end}"),
        None => name.to_owned(),
    }
}

/// What GGUF calls a tensor of a checkpoint.
pub(super) fn to(family: &Family, name: &str) -> Option<String> {
    let (stem, end) = name.rsplit_once('.')?;
    if let Some((theirs, _)) = TOP.iter().find(|it| it.1 == stem) {
        return Some(format!("{theirs}.{end}"));
    }
    let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    // A family's own name hides the usual one of the same tensor.
    let (theirs, _) = family.names.iter().chain(BLOCK).find(|it| it.1 == part)?;
    let hidden = |it: &&(&str, &str)| it.0 == *theirs;
    let first = family.names.iter().chain(BLOCK).find(hidden)?;
    (first.1 == part).then(|| format!("blk.{layer}.{theirs}.{end}"))
}
