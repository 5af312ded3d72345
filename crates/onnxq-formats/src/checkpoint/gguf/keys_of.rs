//! What a description says, as the keys of a GGUF file.

use onnxq_ir::tensor::{DType, Tensor};

use super::{
    export::{ExportPart, ExportTensor},
    families::{Family, WIDE},
    names,
};
use crate::{
    CheckpointError,
    arch::{Activation, Architecture, Head, NormKind, Rotary},
    gguf::Value,
};

/// The keys of an architecture, in the order of llama.cpp's converter.
pub(super) fn write(
    architecture: &Architecture,
    family: &Family,
    metadata: &mut Vec<(String, Value)>,
    notes: &mut Vec<String>,
) -> Result<(), CheckpointError> {
    let mut keys = Keys { family, metadata };
    let first = &architecture.blocks[0];
    let (attention, mlp) = (&first.attention.body, &first.mlp.body);
    keys.size("block_count", architecture.blocks.len())?;
    keys.size("context_length", architecture.context)?;
    keys.size("embedding_length", architecture.hidden)?;
    keys.size("feed_forward_length", mlp.up.outputs())?;
    keys.size("attention.head_count", attention.heads)?;
    keys.size("attention.head_count_kv", attention.kv_heads)?;
    if let Some(rotary) = architecture.rotaries.first() {
        keys.put("rope.freq_base", rotary.base as f32);
        keys.size("rope.dimension_count", rotary.size)?;
    }
    let norm = first.attention.input_norm.as_ref().expect("decoders are normed before attention");
    let epsilon = match norm.kind {
        NormKind::Rms => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    keys.put(epsilon, norm.epsilon);
    keys.size("attention.key_length", attention.head_size)?;
    keys.size("attention.value_length", attention.head_size)?;
    keys.size("vocab_size", architecture.vocabulary)?;
    if let Some(softcap) = attention.softcap {
        keys.put("attn_logit_softcapping", softcap);
    }
    if let Head::Tokens { softcap: Some(softcap), .. } = architecture.head {
        keys.put("final_logit_softcapping", softcap);
    }
    if let Some(local) = architecture.rotaries.get(1) {
        keys.put("rope.freq_base_swa", local.base as f32);
    }
    activation(architecture, family, notes)?;
    scale(architecture, family)?;
    windows(architecture, &mut keys, notes)?;
    scaling(architecture, &mut keys)
}

struct Keys<'a> {
    family: &'a Family,
    metadata: &'a mut Vec<(String, Value)>,
}

impl Keys<'_> {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.push((format!("{}.{key}", self.family.architecture), value.into()));
    }

    fn size(&mut self, key: &str, value: usize) -> Result<(), CheckpointError> {
        let value = u32::try_from(value).map_err(|_| CheckpointError::Contradiction {
            problem: format!("{key} {value} is more than GGUF can say"),
        })?;
        self.put(key, value);
        Ok(())
    }
}

/// Layers that see a window only. Which they are, llama.cpp knows of each family.
fn windows(
    architecture: &Architecture,
    keys: &mut Keys,
    notes: &mut Vec<String>,
) -> Result<(), CheckpointError> {
    let window = architecture.blocks.iter().find_map(|it| it.attention.body.window);
    let Some(window) = window else { return Ok(()) };
    if !keys.family.has_windows {
        notes.push(format!(
            "GGUF cannot say of `{}` that its layers see {window} tokens: longer texts differ",
            architecture.model_type
        ));
        return Ok(());
    }
    keys.size("attention.sliding_window", window)?;
    let Some(usual) = keys.family.pattern else { return Ok(()) };
    let is_local = |at: usize| architecture.blocks[at].attention.body.window.is_some();
    let fits = |period: usize| {
        (0..architecture.blocks.len()).all(|at| is_local(at) != (at + 1).is_multiple_of(period))
    };
    match (2..=architecture.blocks.len() + 1).find(|period| fits(*period)) {
        _ if fits(usual) => Ok(()),
        // Others know one period only.
        Some(period) if usual > 2 => keys.size("attention.sliding_window_pattern", period),
        _ => Err(CheckpointError::Contradiction {
            problem: format!(
                "llama.cpp knows other layers of `{}` with a window",
                architecture.model_type
            ),
        }),
    }
}

/// What llama.cpp takes the activation function to be. Where a checkpoint has the exact GELU, its
/// approximation is near enough to be noted only.
fn activation(
    architecture: &Architecture,
    family: &Family,
    notes: &mut Vec<String>,
) -> Result<(), CheckpointError> {
    let own = architecture.blocks[0].mlp.body.activation;
    match (own, family.activation) {
        (own, theirs) if own == theirs => Ok(()),
        (Activation::Gelu, Activation::GeluTanh) => {
            notes.push("llama.cpp computes GELU by tanh: logits differ a little".to_owned());
            Ok(())
        }
        (own, theirs) => {
            let (file, own) = (family.architecture, own.name());
            let problem = format!("llama.cpp computes {} in `{file}`, not {own}", theirs.name());
            Err(CheckpointError::Contradiction { problem })
        }
    }
}

/// What llama.cpp takes the scale of scores to be.
fn scale(architecture: &Architecture, family: &Family) -> Result<(), CheckpointError> {
    let attention = &architecture.blocks[0].attention.body;
    let layers = architecture.blocks.len() as u64;
    let is_wide = WIDE.contains(&(family.architecture, layers));
    let width = if is_wide { architecture.hidden / attention.heads } else { attention.head_size };
    if (attention.scale * (width as f32).sqrt() - 1.0).abs() < 1e-5 {
        return Ok(());
    }
    let problem =
        format!("llama.cpp scales scores by 1 / sqrt({width}), not by {}", attention.scale);
    Err(CheckpointError::Contradiction { problem })
}

/// Contexts that are stretched.
fn scaling(architecture: &Architecture, keys: &mut Keys) -> Result<(), CheckpointError> {
    let Some(rotary) = architecture.rotaries.first() else { return Ok(()) };
    if let Some((original, _)) = rotary.long {
        keys.size("rope.scaling.original_context_length", original)?;
        keys.put("rope.scaling.attn_factor", rotary.magnitude);
        return Ok(());
    }
    if let Stretch::All(factor) = Stretch::of(rotary) {
        keys.put("rope.scaling.type", "linear");
        keys.put("rope.scaling.factor", factor);
    }
    Ok(())
}

/// How frequencies differ from plain ones.
enum Stretch {
    None,
    All(f32),
    Each(Vec<f32>),
}

impl Stretch {
    fn of(rotary: &Rotary) -> Stretch {
        // Quotients of rounded numbers are a few last bits off.
        let near = |a: f32, b: f32| (a - b).abs() <= 4.0 * f32::EPSILON * b.abs();
        let snap = |it: f32| if near(it, it.round()) { it.round() } else { it };
        let factors: Vec<f32> = rotary.factors().into_iter().map(snap).collect();
        let first = factors.first().copied().unwrap_or(1.0);
        match factors.iter().all(|it| near(*it, first)) {
            true if first == 1.0 => Stretch::None,
            true => Stretch::All(first),
            false => Stretch::Each(factors),
        }
    }
}

/// Factors of frequencies that differ from pair to pair are tensors.
pub(super) fn factors(architecture: &Architecture) -> Vec<ExportTensor> {
    let Some(rotary) = architecture.rotaries.first() else { return Vec::new() };
    if let Some((_, long)) = rotary.long_factors() {
        let short = rotary.factors();
        return names::LONG_ROPE.iter().zip([short, long]).map(|it| list(it.0, it.1)).collect();
    }
    match Stretch::of(rotary) {
        Stretch::Each(factors) => vec![list(names::ROPE_FACTORS, factors)],
        _ => Vec::new(),
    }
}

fn list(name: &str, values: Vec<f32>) -> ExportTensor {
    let shape = vec![values.len()];
    let tensor = Tensor::from_f32(&shape, values);
    let part = ExportPart { names: Vec::new(), rows: 0..shape[0], tensor };
    ExportTensor {
        name: name.to_owned(),
        shape,
        dtype: DType::F32,
        is_rounded: false,
        parts: vec![part],
        order: None,
        stored: None,
    }
}
