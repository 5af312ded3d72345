//! How a recipe spells an observer: a word, or a word with its settings.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Average, Entropy, MinMax, Mse, Observer, Percentile, RangeStats};
use crate::{affine::Interval, solve::SpecVisitor};

/// An observer and its settings, as a recipe names it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObserverSpec {
    MinMax(MinMax),
    Average(Average),
    Percentile(Percentile),
    Entropy(Entropy),
    Mse(Mse),
}

impl Default for ObserverSpec {
    fn default() -> ObserverSpec {
        ObserverSpec::MinMax(MinMax {})
    }
}

impl ObserverSpec {
    pub fn observer(&self) -> &dyn Observer {
        match self {
            ObserverSpec::MinMax(it) => it,
            ObserverSpec::Average(it) => it,
            ObserverSpec::Percentile(it) => it,
            ObserverSpec::Entropy(it) => it,
            ObserverSpec::Mse(it) => it,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            ObserverSpec::MinMax(_) => "min_max",
            ObserverSpec::Average(_) => "average",
            ObserverSpec::Percentile(_) => "percentile",
            ObserverSpec::Entropy(_) => "entropy",
            ObserverSpec::Mse(_) => "mse",
        }
    }

    /// What is wrong with the settings.
    pub fn check(&self) -> Result<(), String> {
        match self {
            ObserverSpec::Percentile(Percentile { percentile: it })
                if !(50.0..=100.0).contains(it) =>
            {
                Err(format!("`percentile` of percentile is {it}, not from 50 to 100"))
            }
            ObserverSpec::Mse(Mse { norm }) if !(0.5..=8.0).contains(norm) => {
                Err(format!("`norm` of mse is {norm}, not from 0.5 to 8"))
            }
            _ => Ok(()),
        }
    }

    /// The interval that `levels` codes are to span: zero and values that were seen, or as far
    /// below zero as above if `symmetric`.
    pub fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval {
        self.observer().range(stats, levels, symmetric)
    }
}

/// The word alone.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "an observer")]
enum Word {
    MinMax,
    Average,
    Percentile,
    Entropy,
    Mse,
}

/// The word with settings.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "an observer")]
#[schemars(rename = "ObserverSettings")]
enum Settings {
    MinMax(MinMax),
    Average(Average),
    Percentile(Percentile),
    Entropy(Entropy),
    Mse(Mse),
}

impl From<Word> for ObserverSpec {
    fn from(it: Word) -> ObserverSpec {
        match it {
            Word::MinMax => ObserverSpec::MinMax(MinMax::default()),
            Word::Average => ObserverSpec::Average(Average::default()),
            Word::Percentile => ObserverSpec::Percentile(Percentile::default()),
            Word::Entropy => ObserverSpec::Entropy(Entropy::default()),
            Word::Mse => ObserverSpec::Mse(Mse::default()),
        }
    }
}

impl From<Settings> for ObserverSpec {
    fn from(it: Settings) -> ObserverSpec {
        match it {
            Settings::MinMax(it) => ObserverSpec::MinMax(it),
            Settings::Average(it) => ObserverSpec::Average(it),
            Settings::Percentile(it) => ObserverSpec::Percentile(it),
            Settings::Entropy(it) => ObserverSpec::Entropy(it),
            Settings::Mse(it) => ObserverSpec::Mse(it),
        }
    }
}

impl<'de> Deserialize<'de> for ObserverSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ObserverSpec, D::Error> {
        let what = "an observer, alone or with its settings";
        deserializer.deserialize_any(SpecVisitor::<Word, Settings, ObserverSpec>::new(what))
    }
}

impl JsonSchema for ObserverSpec {
    fn schema_name() -> Cow<'static, str> {
        "ObserverSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<Settings>();
        let words = ["min_max", "average", "percentile", "entropy", "mse"];
        json_schema!({
            "description": "An observer, alone or with its settings.",
            "anyOf": [{ "enum": words }, settings]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stands_alone_or_with_settings() {
        let read = |text: &str| serde_json::from_str::<ObserverSpec>(text);
        assert_eq!(read("\"min_max\"").unwrap(), ObserverSpec::default());
        let percentile = ObserverSpec::Percentile(Percentile { percentile: 99.9 });
        assert_eq!(read(r#"{"percentile": {"percentile": 99.9}}"#).unwrap(), percentile);
        let text = serde_json::to_string(&percentile).unwrap();
        assert_eq!(read(&text).unwrap(), percentile);
        assert!(read(r#"{"mse": {"nrom": 2}}"#).is_err());
        assert!(read("\"median\"").is_err());
        assert!(read(r#"{"percentile": {"percentile": 7}}"#).unwrap().check().is_err());
        assert!(percentile.check().is_ok());
    }
}
