//! How a recipe spells a solver: a word, or a word with its settings.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        Error, MapAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

use super::{Gptq, Hqq, Imatrix, Mse, Rtn, Solver};

/// A solver and its settings, as a recipe names it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverSpec {
    /// Round to nearest: no data needed, and the bytes that ONNX Runtime's own tool writes.
    #[default]
    Rtn,
    Mse(Mse),
    Hqq(Hqq),
    Imatrix(Imatrix),
    Gptq(Gptq),
}

impl SolverSpec {
    pub fn solver(&self) -> &dyn Solver {
        match self {
            SolverSpec::Rtn => &Rtn,
            SolverSpec::Mse(it) => it,
            SolverSpec::Hqq(it) => it,
            SolverSpec::Imatrix(it) => it,
            SolverSpec::Gptq(it) => it,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            SolverSpec::Rtn => "rtn",
            SolverSpec::Mse(_) => "mse",
            SolverSpec::Hqq(_) => "hqq",
            SolverSpec::Imatrix(_) => "imatrix",
            SolverSpec::Gptq(_) => "gptq",
        }
    }
}

/// The word alone.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a solver")]
enum Word {
    Rtn,
    Mse,
    Hqq,
    Imatrix,
    Gptq,
}

/// The word with settings.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "a solver")]
enum Settings {
    Mse(Mse),
    Hqq(Hqq),
    Imatrix(Imatrix),
    Gptq(Gptq),
}

impl From<Word> for SolverSpec {
    fn from(it: Word) -> SolverSpec {
        match it {
            Word::Rtn => SolverSpec::Rtn,
            Word::Mse => SolverSpec::Mse(Mse::default()),
            Word::Hqq => SolverSpec::Hqq(Hqq::default()),
            Word::Imatrix => SolverSpec::Imatrix(Imatrix::default()),
            Word::Gptq => SolverSpec::Gptq(Gptq::default()),
        }
    }
}

impl From<Settings> for SolverSpec {
    fn from(it: Settings) -> SolverSpec {
        match it {
            Settings::Mse(it) => SolverSpec::Mse(it),
            Settings::Hqq(it) => SolverSpec::Hqq(it),
            Settings::Imatrix(it) => SolverSpec::Imatrix(it),
            Settings::Gptq(it) => SolverSpec::Gptq(it),
        }
    }
}

impl<'de> Deserialize<'de> for SolverSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SolverSpec, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = SolverSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a solver, alone or with its settings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SolverSpec, E> {
        Word::deserialize(StrDeserializer::<E>::new(text)).map(SolverSpec::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SolverSpec, A::Error> {
        Settings::deserialize(MapAccessDeserializer::new(map)).map(SolverSpec::from)
    }

    fn visit_unit<E: Error>(self) -> Result<SolverSpec, E> {
        Err(E::invalid_type(Unexpected::Unit, &self))
    }
}

impl JsonSchema for SolverSpec {
    fn schema_name() -> Cow<'static, str> {
        "SolverSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        json_schema!({
            "description": "A solver, alone or with its settings.",
            "anyOf": [{ "enum": ["rtn", "mse", "hqq", "imatrix", "gptq"] }, settings]
        })
    }
}
