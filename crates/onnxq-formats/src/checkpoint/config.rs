//! The fields of a `config.json`. Each is either read, or known to change nothing, or an error:
//! a field that is passed over in silence makes a wrong graph.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Map, Value};

use crate::CheckpointError;
use onnxq_ir::untrusted::Untrusted;

/// A JSON object that remembers which of its fields were asked for.
#[derive(Debug)]
pub struct Config {
    /// The file that has them, for messages.
    file: String,
    /// What the file calls a field, if not as `config.json` does.
    keys: BTreeMap<&'static str, String>,
    /// The fields around: `rope_scaling.`, empty for the whole file.
    path: String,
    fields: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

/// No size of a model is larger. A configuration that says so is broken or hostile.
const LARGEST: u64 = 1 << 31;

impl Config {
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Config, CheckpointError> {
        let json = |problem: String| CheckpointError::Json { file: file.to_owned(), problem };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Config::new(file, fields, BTreeMap::new())),
            Ok(_) => Err(json("it holds another kind of value".into())),
            Err(error) => Err(json(error.to_string())),
        }
    }

    /// Fields that `file` has under names of its own.
    pub(crate) fn new(
        file: &str,
        fields: Map<String, Value>,
        keys: BTreeMap<&'static str, String>,
    ) -> Config {
        Config {
            file: file.to_owned(),
            keys,
            path: String::new(),
            fields,
            read: RefCell::default(),
        }
    }

    /// Its fields, under the names of `config.json`.
    pub(crate) fn json(&self) -> Value {
        self.fields.clone().into()
    }

    /// A field as its file calls it.
    fn told(&self, name: &str) -> String {
        self.keys.get(name).cloned().unwrap_or_else(|| format!("{}{name}", self.path))
    }

    /// A field that is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.fields.get(name).filter(|it| !it.is_null())
    }

    /// An error about a field.
    pub fn wrong(&self, name: &str, problem: impl Into<String>) -> CheckpointError {
        let (file, field) = (self.file.clone(), self.told(name));
        CheckpointError::Field { file, field, problem: problem.into() }
    }

    /// A field with a value that is known, and not implemented.
    pub fn refuse(&self, name: &str) -> CheckpointError {
        let value = self.fields.get(name).map_or("absent".to_owned(), Value::to_string);
        CheckpointError::NotImplemented { file: self.file.clone(), field: self.told(name), value }
    }

    /// An error about a word that is none of those that are read.
    pub(crate) fn unread(&self, name: &str, word: &str, known: &[&str]) -> CheckpointError {
        let (field, known, word) = (self.told(name), known.join(", "), Untrusted(word));
        let what = format!("has `{field}` `{word}`, which is not implemented; read are {known}");
        CheckpointError::Container { file: self.file.clone(), what }
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn need<T>(&self, name: &str, value: Option<T>) -> Result<T, CheckpointError> {
        value.ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn typed<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, format!("must be {kind}")))
    }

    /// A count or a size: a positive whole number.
    pub fn size(&self, name: &str) -> Result<usize, CheckpointError> {
        self.need(name, self.size_if(name)?)
    }

    pub fn size_or(&self, name: &str, default: usize) -> Result<usize, CheckpointError> {
        Ok(self.size_if(name)?.unwrap_or(default))
    }

    pub fn size_if(&self, name: &str) -> Result<Option<usize>, CheckpointError> {
        self.typed(name, "a positive whole number", |it| {
            let number = it.as_u64().filter(|it| (1..=LARGEST).contains(it))?;
            usize::try_from(number).ok()
        })
    }

    /// A whole number that may be 0, as ids of tokens are.
    pub fn id_if(&self, name: &str) -> Result<Option<usize>, CheckpointError> {
        let read = |it: &Value| usize::try_from(it.as_u64().filter(|it| *it <= LARGEST)?).ok();
        self.typed(name, "a whole number", read)
    }

    /// A number that is finite in `f32`.
    pub fn number_if(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        let read = |it: &Value| it.as_f64().filter(|it| (*it as f32).is_finite());
        self.typed(name, "a number", read)
    }

    /// A number above 0.
    pub fn positive_if(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        match self.number_if(name)? {
            Some(it) if it <= 0.0 => Err(self.wrong(name, "must be above 0")),
            it => Ok(it),
        }
    }

    pub fn positive(&self, name: &str) -> Result<f64, CheckpointError> {
        self.need(name, self.positive_if(name)?)
    }

    pub fn positive_or(&self, name: &str, default: f64) -> Result<f64, CheckpointError> {
        Ok(self.positive_if(name)?.unwrap_or(default))
    }

    pub fn numbers(&self, name: &str) -> Result<Vec<f64>, CheckpointError> {
        let all = |it: &Value| it.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
        self.need(name, self.typed(name, "a list of numbers", all)?)
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A flag whose other value is not implemented.
    pub fn must_be(&self, name: &str, flag: bool) -> Result<(), CheckpointError> {
        if self.flag_or(name, flag)? == flag { Ok(()) } else { Err(self.refuse(name)) }
    }

    /// A whole number whose other values are not implemented.
    pub fn only(&self, name: &str, number: usize) -> Result<(), CheckpointError> {
        if self.id_if(name)?.is_none_or(|it| it == number) {
            Ok(())
        } else {
            Err(self.refuse(name))
        }
    }

    pub fn text_if(&self, name: &str) -> Result<Option<String>, CheckpointError> {
        self.typed(name, "a string", |it| it.as_str().map(str::to_owned))
    }

    pub fn text_or(&self, name: &str, default: &str) -> Result<String, CheckpointError> {
        Ok(self.text_if(name)?.unwrap_or_else(|| default.to_owned()))
    }

    pub fn texts_if(&self, name: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        self.typed(name, "a list of strings", |it| {
            let texts = it.as_array()?.iter();
            texts.map(|it| it.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        })
    }

    /// The names of a map from file to file, as an index of weights has it.
    pub fn names(&self, name: &str) -> Result<BTreeMap<String, String>, CheckpointError> {
        let map = self.typed(name, "an object of strings", |it| {
            let pairs = it.as_object()?.iter();
            let pair = |(key, it): (&String, &Value)| Some((key.clone(), it.as_str()?.to_owned()));
            pairs.map(pair).collect::<Option<BTreeMap<_, _>>>()
        })?;
        self.need(name, map)
    }

    /// How many entries a map has, as `id2label` of a classifier.
    pub fn entries_if(&self, name: &str) -> Result<Option<usize>, CheckpointError> {
        self.typed(name, "an object", |it| it.as_object().map(Map::len))
    }

    /// The names of all fields.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    /// The fields of an inner object, each to be read or refused as well.
    pub fn inner(&self, name: &str) -> Result<Option<Config>, CheckpointError> {
        let fields = self.typed(name, "an object", |it| it.as_object().cloned())?;
        let inner = |fields| Config {
            path: format!("{}{name}.", self.path),
            ..Config::new(&self.file, fields, BTreeMap::new())
        };
        Ok(fields.map(inner))
    }

    /// Fields that change nothing that a forward pass computes.
    pub fn ignore(&self, names: &[&str]) {
        self.read.borrow_mut().extend(names.iter().map(|it| (*it).to_owned()));
    }

    /// Refuses what was not asked for, unless its value says that it is off.
    pub fn finish(&self, model_type: &str) -> Result<(), CheckpointError> {
        let read = self.read.borrow();
        let off = |it: &Value| match it {
            Value::Null | Value::Bool(false) => true,
            Value::Array(it) => it.is_empty(),
            Value::Object(it) => it.is_empty(),
            _ => false,
        };
        let private = |name: &str| name.starts_with('_');
        let unread = self
            .fields
            .iter()
            .find(|(name, value)| !read.contains(*name) && !private(name) && !off(value));
        match unread {
            None => Ok(()),
            Some((name, value)) => Err(CheckpointError::Unknown {
                file: self.file.clone(),
                field: self.told(name),
                value: value.to_string(),
                model_type: model_type.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse("config.json", json.as_bytes()).unwrap()
    }

    #[test]
    fn a_field_is_read_or_refused() {
        let config = config(r#"{"layers": 2, "new": "yes", "off": false, "none": null, "_x": 1}"#);
        assert_eq!(config.size("layers").unwrap(), 2);
        let error = config.finish("llama").unwrap_err().to_string();
        let expected = "config.json: `new` is \"yes\", and what it means for `llama` is not known";
        assert_eq!(error, expected);
        config.ignore(&["new"]);
        config.finish("llama").unwrap();
    }

    #[test]
    fn a_wrong_type_is_named() {
        let config = config(r#"{"a": -1, "b": 1e39, "c": [1, "x"], "d": {"e": 2}}"#);
        let text = |it: CheckpointError| it.to_string();
        let sizes = "config.json: `a` must be a positive whole number";
        assert_eq!(text(config.size("a").unwrap_err()), sizes);
        assert_eq!(text(config.size("x").unwrap_err()), "config.json: `x` is missing");
        assert_eq!(text(config.number_if("b").unwrap_err()), "config.json: `b` must be a number");
        let numbers = "config.json: `c` must be a list of numbers";
        assert_eq!(text(config.numbers("c").unwrap_err()), numbers);
        let inner = config.inner("d").unwrap().unwrap();
        assert_eq!(text(inner.refuse("e")), "config.json: `d.e` is 2, which is not implemented");
    }
}
