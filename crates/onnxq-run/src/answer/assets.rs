//! What belongs to a model: found beside it, in the folders that `onnxq import` and optimum make.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{AnswerError, Place};
use crate::data::DataError;
use onnxq_formats::gguf;

/// A larger file of settings is not read.
const MOST_BYTES: u64 = 64 << 20;
/// What says how the vectors of tokens become one.
const POOLING: &str = "1_Pooling/config.json";

/// A model file and the files beside it. Fields of files that are not there are empty.
#[derive(Debug)]
pub(super) struct Assets {
    pub model: PathBuf,
    /// `tokenizer.json`, whether it is there or not.
    pub tokenizer: PathBuf,
    /// `tokenizer_config.json`, whether it is there or not.
    pub tokenizer_config: PathBuf,
    pub config: Value,
    pub generation: Value,
    pub genai: Value,
    pub tokenizer_fields: Value,
    pub sentence: Value,
    pub modules: Value,
    pub pooling: Value,
    /// A file with a label in each line.
    pub labels: Option<Vec<String>>,
}

impl Assets {
    /// # Errors
    /// E624 if it is not clear which file to run, and what reading says.
    pub(super) fn find(place: &Place) -> Result<Assets, AnswerError> {
        let model = model_file(&place.model)?;
        let folder = folder_of(&model);
        let near = |name: &str| nearest(&model, &folder, name);
        let tokenizer = place.tokenizer.clone().unwrap_or_else(|| near("tokenizer.json"));
        let tokenizer_config = beside_tokenizer(place, &folder);
        Ok(Assets {
            config: fields(&near("config.json"))?,
            generation: fields(&near("generation_config.json"))?,
            genai: fields(&near("genai_config.json"))?,
            tokenizer_fields: fields(&tokenizer_config)?,
            sentence: fields(&near("sentence_bert_config.json"))?,
            modules: fields(&near("modules.json"))?,
            pooling: fields(&near(POOLING))?,
            labels: place.labels.as_deref().map(labels).transpose()?,
            model,
            tokenizer,
            tokenizer_config,
        })
    }

    /// What a GGUF file has in itself, which no runtime here can run.
    pub(super) fn in_gguf(place: &Place) -> Result<Assets, AnswerError> {
        let files = gguf::vocab::files(&place.model).map_err(DataError::from)?;
        let own = |name: &str| {
            let file = files.iter().find(|it| it.0 == name);
            file.map_or(Value::Null, |it| it.1.clone())
        };
        let (tokenizer_config, tokenizer_fields) = match &place.tokenizer {
            Some(_) => {
                let file = beside_tokenizer(place, Path::new(""));
                (file.clone(), fields(&file)?)
            }
            None => (place.model.clone(), own("tokenizer_config.json")),
        };
        Ok(Assets {
            model: place.model.clone(),
            tokenizer: place.tokenizer.clone().unwrap_or_else(|| place.model.clone()),
            tokenizer_config,
            config: own("config.json"),
            generation: own("generation_config.json"),
            genai: Value::Null,
            tokenizer_fields,
            sentence: Value::Null,
            modules: Value::Null,
            pooling: Value::Null,
            labels: place.labels.as_deref().map(labels).transpose()?,
        })
    }

    /// Fails if there is no tokenizer.
    pub(super) fn tokenizer(&self) -> Result<&Path, AnswerError> {
        match self.tokenizer.is_file() {
            true => Ok(&self.tokenizer),
            false => Err(AnswerError::Missing {
                what: "tokenizer.json",
                flag: "tokenizer",
                looked: vec![self.tokenizer.clone()],
            }),
        }
    }
}

/// The configuration that stands beside the tokenizer in use.
fn beside_tokenizer(place: &Place, folder: &Path) -> PathBuf {
    const NAME: &str = "tokenizer_config.json";
    match &place.tokenizer {
        Some(file) => file.with_file_name(NAME),
        None => folder.join(NAME),
    }
}

/// The file to run: the place itself, or what its folder says or has.
fn model_file(place: &Path) -> Result<PathBuf, AnswerError> {
    if !fs::metadata(place).map_err(AnswerError::io(place))?.is_dir() {
        return match gguf::is_gguf(place) {
            true => Err(AnswerError::NoModel { folder: place.to_owned(), checkpoint: true }),
            false => Ok(place.to_owned()),
        };
    }
    let genai = fields(&place.join("genai_config.json"))?;
    if let Some(name) = genai["model"]["decoder"]["filename"].as_str() {
        let named = place.join(name);
        // A configuration names files of its own folder only.
        if Path::new(name).file_name() == Some(name.as_ref()) && named.is_file() {
            return Ok(named);
        }
    }
    let usual = place.join("model.onnx");
    if usual.is_file() {
        return Ok(usual);
    }
    let mut found = models(place)?;
    if found.is_empty() {
        found = models(&place.join("onnx"))?;
    }
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => {
            Err(AnswerError::NoModel { folder: place.to_owned(), checkpoint: is_checkpoint(place) })
        }
        _ => Err(AnswerError::Several { folder: place.to_owned(), found }),
    }
}

fn is_checkpoint(folder: &Path) -> bool {
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    weights.iter().any(|it| folder.join(it).is_file())
}

/// The models in a folder, in alphabetical order.
fn models(folder: &Path) -> Result<Vec<PathBuf>, AnswerError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(AnswerError::io(folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(AnswerError::io(folder))?.path();
        if path.extension().is_some_and(|it| it == "onnx") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where the files lie that belong to a model; those of `onnx/` lie beside that folder.
fn folder_of(model: &Path) -> PathBuf {
    let folder = model.parent().unwrap_or(Path::new(""));
    let real = folder.canonicalize();
    let is_onnx = real.as_deref().unwrap_or(folder).file_name() == Some("onnx".as_ref());
    match is_onnx && !folder.join("tokenizer.json").is_file() {
        true => folder.join(".."),
        false => folder.to_owned(),
    }
}

/// A file of the folder, or one right beside the model, as optimum keeps `generation_config.json`.
fn nearest(model: &Path, folder: &Path, name: &str) -> PathBuf {
    let (usual, beside) = (folder.join(name), model.with_file_name(name));
    if !usual.is_file() && beside.is_file() { beside } else { usual }
}

/// The fields of a file of settings; none if it is not there.
fn fields(file: &Path) -> Result<Value, AnswerError> {
    if fs::metadata(file).is_ok_and(|it| it.len() > MOST_BYTES) {
        let fact = format!("has more than {MOST_BYTES} bytes, more than settings have");
        return Err(DataError::size(file, fact).into());
    }
    match onnxq_ir::fs::read_file(file) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|error| DataError::format(file, format!("is no JSON: {error}")).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(AnswerError::io(file)(error)),
    }
}

fn labels(file: &Path) -> Result<Vec<String>, AnswerError> {
    let text = onnxq_ir::fs::read_text(file).map_err(AnswerError::io(file))?;
    let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    /// Names of files and what they hold.
    type Texts<'a> = &'a [(&'a str, &'a str)];

    fn folder(files: Texts<'_>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn found(files: Texts<'_>, place: &str) -> Result<(String, Assets), AnswerError> {
        let folder = folder(files);
        let place = Place { model: folder.path().join(place), ..Place::default() };
        let assets = Assets::find(&place)?;
        let model = assets.model.strip_prefix(folder.path()).unwrap();
        Ok((model.to_str().unwrap().replace('\\', "/"), assets))
    }

    #[test]
    fn every_layout_is_known() {
        let config = ("config.json", r#"{"eos_token_id": 7}"#);
        let rest = [config, ("tokenizer.json", "{}"), ("1_Pooling/config.json", "{\"a\": 1}")];
        let genai = ("genai_config.json", r#"{"model": {"decoder": {"filename": "m.onnx"}}}"#);
        let cases: [(Texts<'_>, &str, &str); 6] = [
            (&[("model.onnx", "")], "", "model.onnx"),
            (&[("model.onnx", ""), ("other.onnx", "")], "", "model.onnx"),
            (&[("m.onnx", ""), ("n.onnx", ""), genai], "", "m.onnx"),
            (&[("onnx/model_q4.onnx", "")], "", "onnx/model_q4.onnx"),
            (&[("onnx/a.onnx", ""), ("onnx/b.onnx", "")], "onnx/b.onnx", "onnx/b.onnx"),
            (&[("model_int4.onnx", "")], "", "model_int4.onnx"),
        ];
        for (models, place, expected) in cases {
            let (model, assets) = found(&[models, &rest[..]].concat(), place).unwrap();
            assert_eq!((&*model, &assets.config["eos_token_id"]), (expected, &7.into()));
            assert_eq!((&assets.pooling["a"], &assets.generation), (&1.into(), &Value::Null));
        }
        let own = [("onnx/model.onnx", ""), ("onnx/generation_config.json", r#"{"top_k": 3}"#)];
        let (_, assets) = found(&[&own[..], &rest[..]].concat(), "").unwrap();
        assert_eq!(assets.generation["top_k"], 3);
    }

    #[test]
    fn what_is_missing_is_said() {
        let several = [("onnx/model.onnx", ""), ("onnx/model_q4.onnx", "")];
        let error = found(&several, "").unwrap_err();
        assert_eq!(error.code(), Code::E624);
        assert!(error.to_string().contains("model_q4.onnx"), "{error}");
        assert!(error.hint().unwrap().contains("model.onnx"));
        let error = found(&[("model.safetensors", "")], "").unwrap_err();
        assert!(error.hint().unwrap().contains("onnxq import"), "{error}");
        assert_eq!(found(&[], "").unwrap_err().code(), Code::E624);
        let (_, assets) = found(&[("model.onnx", "")], "").unwrap();
        let error = assets.tokenizer().unwrap_err();
        assert!(error.to_string().contains("there is no tokenizer.json"), "{error}");
        let error = found(&[("model.onnx", ""), ("config.json", "{")], "").unwrap_err();
        assert!(error.to_string().contains("is no JSON"), "{error}");
        let outside = r#"{"model": {"decoder": {"filename": "../m.onnx"}}}"#;
        let (model, _) = found(&[("model.onnx", ""), ("genai_config.json", outside)], "").unwrap();
        assert_eq!(model, "model.onnx");
    }
}
