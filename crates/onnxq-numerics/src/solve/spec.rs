//! How a recipe spells a solver: a word, or a word with its settings.

use std::{borrow::Cow, fmt, marker::PhantomData};

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
        let what = "a solver, alone or with its settings";
        deserializer.deserialize_any(SpecVisitor::<Word, Settings, SolverSpec>::new(what))
    }
}

/// Reads a word, or a word with its settings.
pub struct SpecVisitor<Word, Settings, Spec> {
    what: &'static str,
    reads: PhantomData<(Word, Settings, Spec)>,
}

impl<Word, Settings, Spec> SpecVisitor<Word, Settings, Spec> {
    /// `what` is expected, an error says.
    pub fn new(what: &'static str) -> Self {
        SpecVisitor { what, reads: PhantomData }
    }
}

impl<'de, Word, Settings, Spec> Visitor<'de> for SpecVisitor<Word, Settings, Spec>
where
    Word: Deserialize<'de>,
    Settings: Deserialize<'de>,
    Spec: From<Word> + From<Settings>,
{
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Spec, E> {
        Word::deserialize(StrDeserializer::<E>::new(text)).map(Spec::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Spec, A::Error> {
        Settings::deserialize(MapAccessDeserializer::new(map)).map(Spec::from)
    }

    fn visit_unit<E: Error>(self) -> Result<Spec, E> {
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
