//! Metadata of a GGUF file as the fields of a `config.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{
    Family,
    names::{self, Spelling},
};
use crate::{
    CheckpointError, Config,
    gguf::{File, Info, Value},
};

/// Keys of an architecture, and the fields that are made of them.
pub(super) struct Keys<'a> {
    pub file: &'a File,
    pub architecture: &'static str,
    spelling: &'static Spelling,
    name: &'a str,
    fields: Map<String, Json>,
    /// What the file calls a field.
    keys: BTreeMap<&'static str, String>,
    read: BTreeSet<String>,
}

/// A key that says nothing that the table of words does not say.
const WORDS: &str = "vocab_size";

/// The configuration that a file states.
pub(super) fn config(file: &File, name: &str, family: &Family) -> Result<Config, CheckpointError> {
    let mut keys = Keys {
        file,
        architecture: family.architecture,
        spelling: family.spelling,
        name,
        fields: Map::new(),
        keys: BTreeMap::new(),
        read: BTreeSet::new(),
    };
    keys.set("model_type", json!(family.model_type));
    keys.set("architectures", json!([family.class]));
    for (key, field) in family.spelling.fields {
        keys.copy(key, field)?;
    }
    keys.set("tie_word_embeddings", json!(is_tied(file)));
    let words = file.info("token_embd.weight").and_then(|it| it.shape.first());
    if let Some(rows) = words {
        keys.set("vocab_size", json!(rows));
    }
    keys.heads()?;
    (family.fields)(&mut keys)?;
    keys.scaling()?;
    Ok(keys.finish())
}

/// Whether the head is the table of words: it is not there, or it is there once more, as older
/// converters wrote it.
fn is_tied(file: &File) -> bool {
    let same = |head: &Info| file.info("token_embd.weight").is_some_and(|words| words == head);
    file.info("output.weight").is_none_or(same)
}

impl Keys<'_> {
    pub(super) fn set(&mut self, field: &str, value: Json) {
        self.fields.insert(field.to_owned(), value);
    }

    /// A number that a field has by now.
    pub(super) fn size(&self, field: &str) -> Option<u64> {
        self.fields.get(field).and_then(Json::as_u64)
    }

    /// What `config.json` calls a key, if it has a field for it.
    fn field(&self, key: &str) -> Option<&'static str> {
        self.spelling.fields.iter().find(|it| it.0 == key).map(|it| it.1)
    }

    /// A positive number that the field of a key has by now.
    fn stated(&self, key: &str) -> Option<u64> {
        self.size(self.field(key)?).filter(|it| *it > 0)
    }

    /// A key of the architecture, as the file has it.
    fn whole(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// What the file says of a key of the architecture.
    fn value(&mut self, key: &str) -> Option<&Value> {
        let key = self.whole(key);
        self.read.insert(key.clone());
        self.file.value(&key)
    }

    /// Takes a key over, if the file has it.
    pub(super) fn copy(&mut self, key: &str, field: &'static str) -> Result<(), CheckpointError> {
        let whole = self.whole(key);
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
            return Err(self.wrong(&self.whole(value), format!("must be that of {key}")));
        }
        let heads = self.stated("attention.head_count");
        let shared = self.stated("embedding_length").zip(heads).map(|(width, it)| width / it);
        self.implied(key, shared)?;
        self.implied("attention.head_count_kv", heads)?;
        let all = self.stated(key).or(shared);
        let turned = length(self.value("rope.dimension_count"));
        if let (Some(turned), Some(all)) = (turned, all)
            && turned != i128::from(all)
            && all > 0
        {
            self.keys.insert("partial_rotary_factor", self.whole("rope.dimension_count"));
            self.set("partial_rotary_factor", json!(turned as f64 / all as f64));
        }
        Ok(())
    }

    /// A key without a field may only repeat what follows from others.
    fn implied(&mut self, key: &str, expected: Option<u64>) -> Result<(), CheckpointError> {
        let Some(expected) = expected.filter(|_| self.field(key).is_none()) else { return Ok(()) };
        match self.value(key).map(Value::integer) {
            Some(stated) if stated != Some(expected.into()) => {
                Err(self.wrong(&self.whole(key), format!("must be {expected}")))
            }
            _ => Ok(()),
        }
    }

    /// How contexts are stretched. What does not count for the way that is stated stays unread, and so is
    /// an error.
    fn scaling(&mut self) -> Result<(), CheckpointError> {
        let stated = self.value("rope.scaling.type").and_then(|it| it.text()).map(str::to_owned);
        let is_long = names::LONG_ROPE.iter().any(|it| self.file.info(it).is_some());
        let has_factor = self.file.value(&self.whole("rope.scaling.factor")).is_some();
        let kind = match stated {
            _ if is_long => "longrope".to_owned(),
            Some(stated) => stated,
            // As llama.cpp has it, where the file says how much and not how.
            None if has_factor => "linear".to_owned(),
            None => return Ok(()),
        };
        let mut scaling = Map::from_iter([("rope_type".to_owned(), json!(kind))]);
        match &*kind {
            "none" => {
                self.value("rope.scaling.factor");
                return Ok(());
            }
            "longrope" => {
                for (tensor, field) in names::LONG_ROPE.iter().zip(["short_factor", "long_factor"])
                {
                    let numbers = super::numbers(self.file, self.name, tensor)?;
                    scaling.insert(field.to_owned(), json!(numbers));
                }
                // What transformers computes of both lengths is what the key holds.
                let factor = self.value("rope.scaling.attn_factor").and_then(|it| it.float());
                scaling.extend(factor.map(|it| ("attention_factor".to_owned(), json!(it))));
            }
            _ => {
                let factor = self.value("rope.scaling.factor").and_then(|it| it.float());
                scaling.extend(factor.map(|it| ("factor".to_owned(), json!(it))));
            }
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
            if !self.read.contains(key) && own != WORDS && !is_off {
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
