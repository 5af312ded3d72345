//! Rotary position embeddings (Su et al. 2021), and how contexts are stretched.
//!
//! Frequencies are computed in `f32`, step by step as transformers does: at place 8,192 a
//! difference in the last bit of a frequency is seen in the fourth digit of a sine.

use std::f32::consts::TAU;

use super::describe::Shape;
use crate::{CheckpointError, Config};

/// How queries and keys turn with their place: halves of the first `size` elements of each head
/// are the two coordinates of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Elements of a head that turn; the rest stays.
    pub size: usize,
    /// Of the frequencies before they are stretched: pair `i` has `base^(-2i / size)`.
    pub base: f64,
    /// Radians per place of each pair.
    pub frequencies: Vec<f32>,
    /// If the text is longer than so many tokens, these count instead.
    pub long: Option<(usize, Vec<f32>)>,
    /// Sines and cosines are multiplied by it.
    pub magnitude: f32,
}

impl Rotary {
    /// What frequencies that do not depend on the text's length are divided by, pair by pair.
    pub fn factors(&self) -> Vec<f32> {
        factors(self, &self.frequencies)
    }

    /// The same of long texts.
    pub fn long_factors(&self) -> Option<(usize, Vec<f32>)> {
        self.long.as_ref().map(|(from, it)| (*from, factors(self, it)))
    }
}

fn factors(rotary: &Rotary, stretched: &[f32]) -> Vec<f32> {
    let plain = frequencies(rotary.size, rotary.base);
    plain.iter().zip(stretched).map(|(plain, it)| plain / it).collect()
}

/// Where a configuration speaks of rotary embeddings. Files of transformers 5 have all of it in
/// `rope_parameters`, one object for each type of layer if they differ; older ones have
/// `rope_theta` and `rope_scaling` beside the other fields.
pub(super) fn read(
    config: &Config,
    shape: &Shape,
    layer_type: Option<&str>,
    default_base: f64,
) -> Result<Rotary, CheckpointError> {
    let Some(all) = config.inner("rope_parameters")? else {
        let base = config.positive_or("rope_theta", default_base)?;
        let part = config.positive_or("partial_rotary_factor", 1.0)?;
        let scaling = config.inner("rope_scaling")?;
        return rotary(config, scaling.as_ref(), shape, (base, part));
    };
    let own = match layer_type {
        Some(name) => all.inner(name)?,
        None => None,
    };
    let given = own.as_ref().unwrap_or(&all);
    let base = given.positive_or("rope_theta", default_base)?;
    // Both places are known to be used.
    let part = config.positive_or("partial_rotary_factor", 1.0)?;
    let part = given.positive_or("partial_rotary_factor", part)?;
    let rotary = rotary(config, Some(given), shape, (base, part))?;
    all.ignore(&["full_attention", "sliding_attention"]);
    all.finish(&shape.model_type)?;
    Ok(rotary)
}

/// The same frequencies for all lengths, nothing stretched.
pub(super) fn plain(size: usize, base: f64) -> Rotary {
    Rotary { size, base, frequencies: frequencies(size, base), long: None, magnitude: 1.0 }
}

fn rotary(
    config: &Config,
    scaling: Option<&Config>,
    shape: &Shape,
    (base, part): (f64, f64),
) -> Result<Rotary, CheckpointError> {
    let size = (shape.head_size as f64 * part) as usize;
    if size == 0 || size % 2 == 1 || size > shape.head_size {
        let text = format!("leads to {size} rotated elements of {}", shape.head_size);
        return Err(config.wrong("partial_rotary_factor", text));
    }
    let rotary = plain(size, base);
    let Some(scaling) = scaling else { return Ok(rotary) };
    // The older name of the field.
    let old = scaling.text_if("type")?;
    let name = scaling.text_if("rope_type")?.or(old).unwrap_or_else(|| "default".to_owned());
    let rotary = match &*name {
        "default" => rotary,
        "linear" => linear(rotary, scaling)?,
        "llama3" => llama3(rotary, scaling)?,
        "longrope" | "su" => longrope(rotary, config, scaling, shape)?,
        _ => {
            return Err(scaling.refuse(if scaling.has("rope_type") {
                "rope_type"
            } else {
                "type"
            }));
        }
    };
    scaling.finish(&shape.model_type)?;
    Ok(rotary)
}

fn frequencies(size: usize, base: f64) -> Vec<f32> {
    let exponent = |it: usize| (2 * it) as f32 / size as f32;
    (0..size / 2).map(|it| 1.0 / (base as f32).powf(exponent(it))).collect()
}

/// Places are divided by a factor (Chen et al. 2023).
fn linear(mut rotary: Rotary, scaling: &Config) -> Result<Rotary, CheckpointError> {
    let factor = factor(scaling)? as f32;
    rotary.frequencies.iter_mut().for_each(|it| *it /= factor);
    Ok(rotary)
}

/// Slow frequencies are divided by a factor, fast ones stay, those between are mixed
/// (Llama 3.1, Dubey et al. 2024).
fn llama3(mut rotary: Rotary, scaling: &Config) -> Result<Rotary, CheckpointError> {
    let factor = factor(scaling)? as f32;
    let low = need(scaling, "low_freq_factor")? as f32;
    let high = need(scaling, "high_freq_factor")? as f32;
    if high <= low {
        return Err(scaling.wrong("high_freq_factor", "must be above low_freq_factor"));
    }
    let original = scaling.size("original_max_position_embeddings")? as f32;
    let stretch = |it: f32| {
        let length = TAU / it;
        if length < original / high {
            it
        } else if length > original / low {
            it / factor
        } else {
            let smooth = (original / length - low) / (high - low);
            (1.0 - smooth) * it / factor + smooth * it
        }
    };
    rotary.frequencies.iter_mut().for_each(|it| *it = stretch(*it));
    Ok(rotary)
}

/// A factor for each frequency, others for long texts (Ding et al. 2024, Phi-3).
fn longrope(
    rotary: Rotary,
    config: &Config,
    scaling: &Config,
    shape: &Shape,
) -> Result<Rotary, CheckpointError> {
    let inner = scaling.size_if("original_max_position_embeddings")?;
    let original = config.size_if("original_max_position_embeddings")?.or(inner);
    let stated = scaling.positive_if("factor")?;
    let (original, factor) = match (original, stated) {
        (Some(it), _) => (it, shape.context as f64 / it as f64),
        (None, Some(factor)) => (shape.context, factor),
        (None, None) => {
            return Err(config.wrong("original_max_position_embeddings", "is missing"));
        }
    };
    let stretched = |name: &str| -> Result<Vec<f32>, CheckpointError> {
        let factors = scaling.numbers(name)?;
        if factors.len() != rotary.size / 2 || factors.iter().any(|it| *it <= 0.0) {
            let text = format!("must be {} numbers above 0", rotary.size / 2);
            return Err(scaling.wrong(name, text));
        }
        let pairs = rotary.frequencies.iter().zip(factors);
        // In this order: factor · base^… first, then the reciprocal.
        Ok(pairs.map(|(it, factor)| 1.0 / (factor as f32 * (1.0 / it))).collect())
    };
    let magnitude = match scaling.positive_if("attention_factor")? {
        Some(it) => it,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
    };
    let (short, long) = (stretched("short_factor")?, stretched("long_factor")?);
    Ok(Rotary {
        frequencies: short,
        long: Some((original, long)),
        magnitude: magnitude as f32,
        ..rotary
    })
}

fn factor(scaling: &Config) -> Result<f64, CheckpointError> {
    need(scaling, "factor")
}

fn need(scaling: &Config, name: &str) -> Result<f64, CheckpointError> {
    scaling.positive_if(name)?.ok_or_else(|| scaling.wrong(name, "is missing"))
}
