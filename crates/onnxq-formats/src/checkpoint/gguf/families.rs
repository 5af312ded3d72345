//! The architectures of GGUF files that are known, and how each differs from Llama.

use serde_json::json;

use super::{
    keys::Keys,
    names::{self, Name, Spelling},
};
use crate::{
    CheckpointError,
    arch::{Activation, Architecture},
    gguf::File,
};

/// An architecture as llama.cpp names it.
pub(super) struct Family {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// `model_type` of the same in a `config.json`, and its class.
    pub model_type: &'static str,
    pub class: &'static str,
    /// Whether rows of queries and keys lie in pairs.
    is_paired: bool,
    /// Whether llama.cpp has windows of attention there, and how many layers there are to one that sees
    /// everything.
    pub has_windows: bool,
    pub pattern: Option<usize>,
    /// What its checkpoints call things.
    pub spelling: &'static Spelling,
    /// Tensors of a block that are called otherwise.
    pub names: &'static [Name],
    /// What llama.cpp computes in feed-forward parts. No key says it.
    pub activation: Activation,
    /// Fields beyond those that all have.
    pub fields: fn(&mut Keys) -> Result<(), CheckpointError>,
}

const GEMMA_NORMS: &[Name] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const fn family(
    architecture: &'static str,
    (model_type, class): (&'static str, &'static str),
    names: &'static [Name],
    fields: fn(&mut Keys) -> Result<(), CheckpointError>,
) -> Family {
    let (has_windows, pattern) = (false, None);
    Family {
        architecture,
        model_type,
        class,
        is_paired: false,
        has_windows,
        pattern,
        spelling: &names::LLAMA,
        names,
        activation: Activation::Silu,
        fields,
    }
}

const fn gelu(family: Family) -> Family {
    Family { activation: Activation::GeluTanh, ..family }
}

const fn windowed(pattern: Option<usize>, family: Family) -> Family {
    Family { has_windows: true, pattern, ..family }
}

/// In alphabetical order. Mistral calls itself `llama`.
pub(super) const FAMILIES: &[Family] = &[
    gelu(family("gemma", ("gemma", "GemmaForCausalLM"), &[], none)),
    gelu(windowed(Some(2), family("gemma2", ("gemma2", "Gemma2ForCausalLM"), GEMMA_NORMS, gemma2))),
    gelu(windowed(
        Some(6),
        family("gemma3", ("gemma3_text", "Gemma3ForCausalLM"), GEMMA_NORMS, gemma3),
    )),
    Family {
        spelling: &names::GPT2,
        ..gelu(family("gpt2", ("gpt2", "GPT2LMHeadModel"), &[], none))
    },
    Family { is_paired: true, ..family("llama", ("llama", "LlamaForCausalLM"), &[], llama) },
    windowed(
        None,
        family("phi3", ("phi3", "Phi3ForCausalLM"), &[("ffn_up", "mlp.gate_up_proj")], phi3),
    ),
    family("qwen2", ("qwen2", "Qwen2ForCausalLM"), &[], none),
    family("qwen3", ("qwen3", "Qwen3ForCausalLM"), &[], none),
];

/// Tensors whose rows lie in pairs in some files.
const QUERIES: &str = "self_attn.q_proj.";
const KEYS: &str = "self_attn.k_proj.";

impl Family {
    /// That of a `model_type`.
    pub(super) fn of(model_type: &str) -> Result<&'static Family, CheckpointError> {
        let model_type = if model_type == "mistral" { "llama" } else { model_type };
        FAMILIES.iter().find(|it| it.model_type == model_type).ok_or_else(|| {
            let known = FAMILIES.iter().map(|it| it.model_type).collect::<Vec<_>>().join(", ");
            CheckpointError::NoFamily { model_type: model_type.to_owned(), known }
        })
    }

    /// The order of a tensor's rows in files: pairs `(0, d/2), (1, d/2 + 1), …` of each head.
    pub(super) fn order(
        &self,
        architecture: &Architecture,
        name: &str,
        rows: usize,
    ) -> Option<Vec<usize>> {
        let attention = &architecture.blocks.first()?.attention.body;
        let heads = match name {
            _ if !self.is_paired => return None,
            _ if name.contains(QUERIES) => attention.heads,
            _ if name.contains(KEYS) => attention.kv_heads,
            _ => return None,
        };
        let size = rows / heads;
        let row = |at: usize| {
            let (head, at) = (at / size, at % size);
            head * size + at / 2 + at % 2 * (size / 2)
        };
        Some((0..rows).map(row).collect())
    }

    /// How many heads the rows of a tensor are of, if they lie in pairs.
    pub(super) fn heads_of(&self, file: &File, name: &str) -> Option<usize> {
        let key = match name {
            _ if !self.is_paired => return None,
            _ if name.contains(QUERIES) => "attention.head_count",
            _ if name.contains(KEYS) => "attention.head_count_kv",
            _ => return None,
        };
        let of = |key: &str| file.value(&format!("{}.{key}", self.architecture))?.integer();
        let count = of(key).or_else(|| of("attention.head_count"))?;
        usize::try_from(count).ok()
    }
}

fn none(_: &mut Keys) -> Result<(), CheckpointError> {
    Ok(())
}

fn llama(keys: &mut Keys) -> Result<(), CheckpointError> {
    keys.set("attention_bias", json!(keys.file.info("blk.0.attn_q.bias").is_some()));
    keys.set("mlp_bias", json!(keys.file.info("blk.0.ffn_up.bias").is_some()));
    Ok(())
}

fn phi3(keys: &mut Keys) -> Result<(), CheckpointError> {
    keys.copy("attention.sliding_window", "sliding_window")?;
    keys.copy("rope.scaling.original_context_length", "original_max_position_embeddings")?;
    Ok(())
}

/// The layers of Gemma 2 27B and of Gemma 3 27B, which scale scores by the width of all heads together:
/// no key says so, llama.cpp knows it.
pub(super) const WIDE: [(&str, u64); 2] = [("gemma2", 46), ("gemma3", 62)];

fn gemma2(keys: &mut Keys) -> Result<(), CheckpointError> {
    keys.copy("attention.sliding_window", "sliding_window")?;
    keys.copy("attn_logit_softcapping", "attn_logit_softcapping")?;
    keys.copy("final_logit_softcapping", "final_logit_softcapping")?;
    let layers = keys.size("num_hidden_layers");
    let is_wide = WIDE.iter().any(|it| it.0 == keys.architecture && Some(it.1) == layers);
    let scalar = match (keys.size("hidden_size"), keys.size("num_attention_heads")) {
        (Some(hidden), Some(heads)) if is_wide && heads > 0 => Some(hidden / heads),
        _ => keys.size("head_dim"),
    };
    if let Some(scalar) = scalar {
        keys.set("query_pre_attn_scalar", json!(scalar));
    }
    Ok(())
}

fn gemma3(keys: &mut Keys) -> Result<(), CheckpointError> {
    keys.copy("rope.freq_base_swa", "rope_local_base_freq")?;
    keys.copy("attention.sliding_window_pattern", "sliding_window_pattern")?;
    gemma2(keys)
}
