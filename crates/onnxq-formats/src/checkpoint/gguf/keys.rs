//! Metadata of a GGUF file as the fields of a `config.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{Family, names};
use crate::{
    CheckpointError, Config,
    gguf::{File, Value},
};

/// Keys of an architecture, and the fields that are made of them.
pub(super) struct Keys<'a> {
    pub file: &'a File,
    pub architecture: &'static str,
    name: &'a str,
    fields: Map<String, Json>,
    /// Fields by the key that they are of.
    keys: BTreeMap<&'static str, String>,
    read: BTreeSet<String>,
}

/// Of every family: a key, and the field it becomes.
const SIZES: &[(&str, &str)] = &[
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("context_length", "max_position_embeddings"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
];

/// Keys that say nothing that tensors and other keys do not say.
const NEUTRAL: &[&str] = &["vocab_size", "attention.value_length", "rope.dimension_count"];

/// The configuration that a file states.
pub(super) fn config(file: &File, name: &str, family: &Family) -> Result<Config, CheckpointError> {
    let mut keys = Keys {
        file,
        architecture: family.architecture,
        name,
        fields: Map::new(),
        keys: BTreeMap::new(),
        read: BTreeSet::new(),
    };
    keys.set("model_type", json!(family.model_type));
    keys.set("architectures", json!([family.class]));
    for (key, field) in SIZES {
        keys.copy(key, field)?;
    }
    keys.set("tie_word_embeddings", json!(file.info("output.weight").is_none()));
    let words = file.info("token_embd.weight").and_then(|it| it.shape.first());
    if let Some(rows) = words {
        keys.set("vocab_size", json!(rows));
    }
    keys.heads()?;
    (family.fields)(&mut keys)?;
    keys.scaling()?;
    Ok(keys.finish())
}

impl Keys<'_> {
    pub(super) fn set(&mut self, field: &str, value: Json) {
        self.fields.insert(field.to_owned(), value);
    }

    /// A number that a field has by now.
    pub(super) fn size(&self, field: &str) -> Option<u64> {
        self.fields.get(field).and_then(Json::as_u64)
    }

    /// A key of the architecture.
    fn value(&mut self, key: &str) -> Option<&Value> {
        let key = format!("{}.{key}", self.architecture);
        self.read.insert(key.clone());
        self.file.value(&key)
    }

    /// Takes a key over, if the file has it.
    pub(super) fn copy(&mut self, key: &str, field: &'static str) -> Result<(), CheckpointError> {
        let whole = format!("{}.{key}", self.architecture);
        self.keys.insert(field, whole.clone());
        let Some(value) = self.value(key) else { return Ok(()) };
        match json(value) {
            Some(value) => {
                self.set(field, value);
                Ok(())
            }
            None => Err(self.wrong(&whole, "must be a number or a text")),
        }
    }

    fn wrong(&self, key: &str, problem: impl Into<String>) -> CheckpointError {
        let (file, field) = (self.name.to_owned(), key.to_owned());
        CheckpointError::Field { file, field, problem: problem.into() }
    }

    /// Sizes that must agree with each other.
    fn heads(&mut self) -> Result<(), CheckpointError> {
        let [key, value] = ["attention.key_length", "attention.value_length"];
        let length = |it: Option<&Value>| it.and_then(Value::integer);
        let (keys, values) = (length(self.value(key)), length(self.value(value)));
        if keys.is_some() && values.is_some() && keys != values {
            let whole = format!("{}.{value}", self.architecture);
            return Err(self.wrong(&whole, format!("must be that of {key}")));
        }
        let turned = length(self.value("rope.dimension_count"));
        let of = |it: &Self, field| it.size(field).filter(|it| *it > 0);
        let all = of(self, "head_dim")
            .or_else(|| Some(of(self, "hidden_size")? / of(self, "num_attention_heads")?));
        if let (Some(turned), Some(all)) = (turned, all)
            && turned != i128::from(all)
            && all > 0
        {
            self.keys.insert("partial_rotary_factor", self.whole("rope.dimension_count"));
            self.set("partial_rotary_factor", json!(turned as f64 / all as f64));
        }
        Ok(())
    }

    fn whole(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// How contexts are stretched.
    fn scaling(&mut self) -> Result<(), CheckpointError> {
        let kind = self.value("rope.scaling.type").and_then(|it| it.text()).map(str::to_owned);
        let factor = self.value("rope.scaling.factor").and_then(|it| it.float());
        let attention = self.value("rope.scaling.attn_factor").and_then(|it| it.float());
        let has_long = self.file.info(names::LONG_ROPE[0]).is_some();
        let kind = if has_long { Some("longrope".to_owned()) } else { kind };
        let Some(kind) = kind.filter(|it| it != "none") else { return Ok(()) };
        let mut scaling = Map::from_iter([("rope_type".to_owned(), json!(kind))]);
        if kind == "longrope" {
            for (tensor, field) in names::LONG_ROPE.iter().zip(["short_factor", "long_factor"]) {
                let numbers = super::numbers(self.file, self.name, tensor)?;
                scaling.insert(field.to_owned(), json!(numbers));
            }
            // What transformers computes of both lengths is what the key holds.
            scaling.extend(attention.map(|it| ("attention_factor".to_owned(), json!(it))));
        } else {
            scaling.extend(factor.map(|it| ("factor".to_owned(), json!(it))));
        }
        self.set("rope_scaling", Json::Object(scaling));
        Ok(())
    }

    /// What no family reads stays a field, which then is said to be unknown.
    fn finish(mut self) -> Config {
        let prefix = format!("{}.", self.architecture);
        for (key, value) in self.file.metadata() {
            let Some(own) = key.strip_prefix(&prefix) else { continue };
            let is_off = value.integer() == Some(0);
            if !self.read.contains(key) && !NEUTRAL.contains(&own) && !is_off {
                let value = json(value).unwrap_or_else(|| json!("a list"));
                self.fields.insert(key.to_owned(), value);
            }
        }
        Config::new(self.name, self.fields, self.keys)
    }
}

fn json(value: &Value) -> Option<Json> {
    if let Some(it) = value.text() {
        return Some(json!(it));
    }
    if let Some(it) = value.bool() {
        return Some(json!(it));
    }
    match value.integer() {
        Some(it) => i64::try_from(it).ok().map(|it| json!(it)),
        None => value.float().map(|it| json!(it)),
    }
}
