//! How a recipe spells a transform: a word, or a word with its settings.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Awq, Equalize, Reader, SmoothQuant, Ties};
use onnxq_ir::tensor::TensorError;
use onnxq_numerics::{solve::SpecVisitor, stats::InputStats};

/// A transform and its settings, as a recipe names it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformSpec {
    Awq(Awq),
    Equalize(Equalize),
    SmoothQuant(SmoothQuant),
}

impl TransformSpec {
    pub fn name(&self) -> &'static str {
        match self {
            TransformSpec::Awq(_) => "awq",
            TransformSpec::Equalize(_) => "equalize",
            TransformSpec::SmoothQuant(_) => "smooth_quant",
        }
    }

    /// Whether a node may be inserted where nothing absorbs the scales.
    pub fn mul(&self) -> bool {
        match self {
            TransformSpec::Awq(it) => it.mul,
            TransformSpec::Equalize(_) => false,
            TransformSpec::SmoothQuant(it) => it.mul,
        }
    }

    /// What is wrong with the settings.
    pub fn check(&self) -> Result<(), String> {
        match self {
            TransformSpec::Awq(Awq { steps, .. }) if !(1..=1000).contains(steps) => {
                Err(format!("`steps` of awq is {steps}, not from 1 to 1000"))
            }
            TransformSpec::SmoothQuant(SmoothQuant { alpha, .. })
                if !(0.0..=1.0).contains(alpha) =>
            {
                Err(format!("`alpha` of smooth_quant is {alpha}, not from 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it looks at activations; else it is a change of the model alone.
    pub fn needs_data(&self) -> bool {
        !matches!(self, TransformSpec::Equalize(_))
    }

    /// The scale of each channel of an activation, `[k]`: positive, and equal for tied channels.
    /// One for a transform that does not look at activations.
    pub fn scales(
        &self,
        readers: &[Reader],
        stats: &InputStats,
        ties: Ties,
    ) -> Result<Vec<f32>, TensorError> {
        match self {
            TransformSpec::Awq(it) => it.scales(readers, stats, ties),
            TransformSpec::Equalize(_) => Ok(vec![1.0; stats.k()]),
            TransformSpec::SmoothQuant(it) => it.scales(readers, stats, ties),
        }
    }
}

/// The word alone.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a transform")]
enum Word {
    Awq,
    Equalize,
    SmoothQuant,
}

/// The word with settings.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "a transform")]
#[schemars(rename = "TransformSettings")]
enum Settings {
    Awq(Awq),
    Equalize(Equalize),
    SmoothQuant(SmoothQuant),
}

impl From<Word> for TransformSpec {
    fn from(it: Word) -> TransformSpec {
        match it {
            Word::Awq => TransformSpec::Awq(Awq::default()),
            Word::Equalize => TransformSpec::Equalize(Equalize::default()),
            Word::SmoothQuant => TransformSpec::SmoothQuant(SmoothQuant::default()),
        }
    }
}

impl From<Settings> for TransformSpec {
    fn from(it: Settings) -> TransformSpec {
        match it {
            Settings::Awq(it) => TransformSpec::Awq(it),
            Settings::Equalize(it) => TransformSpec::Equalize(it),
            Settings::SmoothQuant(it) => TransformSpec::SmoothQuant(it),
        }
    }
}

impl<'de> Deserialize<'de> for TransformSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TransformSpec, D::Error> {
        let what = "a transform, alone or with its settings";
        deserializer.deserialize_any(SpecVisitor::<Word, Settings, TransformSpec>::new(what))
    }
}

impl JsonSchema for TransformSpec {
    fn schema_name() -> Cow<'static, str> {
        "TransformSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({
            "description": "A transform, alone or with its settings.",
            "anyOf": [{ "enum": ["awq", "equalize", "smooth_quant"] }, settings]
        })
    }
}
