//! The files of a tokenizer of Hugging Face as keys of a GGUF file, as llama.cpp's converter writes them.

use std::{collections::BTreeMap, io, path::Path};

use serde_json::Value as Json;

use super::{
    ADD_BOS, ADD_EOS, ENDS, Kind, MERGES, MODEL, PRE, SPACE_PREFIX, SPECIAL, TEMPLATE, TOKENS,
    TYPES, pre::Pre,
};
use crate::{
    CheckpointError,
    gguf::{Array, Value},
};

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// A space in a merge, whose two parts are joined by one: the letter that stands for its byte.
const SPACE: &str = "\u{120}";

/// The keys of the tokenizer in a folder, for a model with `vocab_size` tokens.
///
/// # Errors
/// E121 of files that contradict each other, E122 of a tokenizer that GGUF has no name for, and what
/// reading says. A folder with `tokenizer.model` only has none.
pub fn keys(folder: &Path, vocab_size: usize) -> Result<Vec<(String, Value)>, CheckpointError> {
    let tokenizer = json(folder, FILE)?.ok_or_else(|| absent(folder))?;
    let config = json(folder, CONFIG)?.unwrap_or_default();
    let model = &tokenizer["model"];
    let folds = model["byte_fallback"].as_bool().unwrap_or(false);
    if model["type"] != "BPE" || folds {
        return Err(refuse("model", &short(&strip(model))));
    }
    let pre = Pre::of(&tokenizer);
    let pre = pre.ok_or_else(|| refuse("pre_tokenizer", &short(&tokenizer["pre_tokenizer"])))?;
    let words = words(&tokenizer, vocab_size)?;
    let mut keys = Keys(Vec::new());
    keys.set(MODEL, "gpt2");
    keys.set(PRE, pre.names[0]);
    keys.set(TOKENS, Array::of_texts(words.iter().map(|it| &it.0)));
    keys.set(TYPES, words.iter().map(|it| it.1 as i32).collect::<Array>());
    keys.set(MERGES, Array::of_texts(merges(model)?));
    special(&mut keys, folder, &config, &words)?;
    let (begins, ends) = around(&tokenizer["post_processor"]);
    keys.set(ADD_BOS, begins);
    if ends {
        keys.set(ADD_EOS, ends);
    }
    if let Some(it) = config["add_prefix_space"].as_bool() {
        keys.set(SPACE_PREFIX, it);
    }
    if let Some(it) = template(folder, &config)? {
        keys.set(TEMPLATE, &*it);
    }
    Ok(keys.0)
}

struct Keys(Vec<(String, Value)>);

impl Keys {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push((key.to_owned(), value.into()));
    }
}

fn wrong(field: &str, problem: impl Into<String>) -> CheckpointError {
    CheckpointError::Field { file: FILE.into(), field: field.into(), problem: problem.into() }
}

/// What llama.cpp has no name for.
fn refuse(field: &str, value: &str) -> CheckpointError {
    CheckpointError::NotImplemented {
        file: FILE.into(),
        field: field.into(),
        value: value.to_owned(),
    }
}

fn absent(folder: &Path) -> CheckpointError {
    if folder.join("tokenizer.model").is_file() {
        return CheckpointError::NotImplemented {
            file: folder.display().to_string(),
            field: "tokenizer.model".into(),
            value: "the only tokenizer".into(),
        };
    }
    let source = io::Error::from(io::ErrorKind::NotFound);
    CheckpointError::Io { path: folder.join(FILE), source }
}

fn json(folder: &Path, name: &str) -> Result<Option<Json>, CheckpointError> {
    let path = folder.join(name);
    let bytes = match onnxq_ir::fs::read_file(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { path, source }),
    };
    let problem = |it: String| CheckpointError::Json { file: name.to_owned(), problem: it };
    match serde_json::from_slice(&bytes) {
        Ok(value @ Json::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(problem("it holds another kind of value".into())),
        Err(error) => Err(problem(error.to_string())),
    }
}

/// The settings of a model without its tables.
fn strip(model: &Json) -> Json {
    let mut model = model.clone();
    if let Some(fields) = model.as_object_mut() {
        fields.retain(|_, it| !it.is_array() && !it.is_object());
    }
    model
}

/// The beginning of a value, for a message.
fn short(value: &Json) -> String {
    const MOST: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Every token of the model and what it is. Numbers without one are unused.
fn words(tokenizer: &Json, size: usize) -> Result<Vec<(String, Kind)>, CheckpointError> {
    let vocab = tokenizer["model"]["vocab"].as_object();
    let vocab = vocab.ok_or_else(|| wrong("model.vocab", "must be an object"))?;
    let mut found: BTreeMap<usize, (String, Kind)> = BTreeMap::new();
    let place = |id: &Json, field: &str| {
        let fits = id.as_u64().and_then(|it| usize::try_from(it).ok()).filter(|it| *it < size);
        fits.ok_or_else(|| wrong(field, format!("has token {id}, but the model has {size}")))
    };
    for (token, id) in vocab {
        found.insert(place(id, "model.vocab")?, (token.clone(), Kind::Normal));
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let text = added["content"].as_str().unwrap_or_default();
        let steers = added["special"].as_bool().unwrap_or(false) || looks_special(text);
        let (token, kind) = match steers {
            true => (text.to_owned(), Kind::Control),
            false => (text.replace('\u{2581}', " "), Kind::UserDefined),
        };
        found.insert(place(&added["id"], "added_tokens")?, (token, kind));
    }
    let unused = |id: usize| (format!("[PAD{id}]"), Kind::Unused);
    Ok((0..size).map(|id| found.remove(&id).unwrap_or_else(|| unused(id))).collect())
}

/// Tokens that steer, but are not always marked so.
fn looks_special(token: &str) -> bool {
    let within = |open: &str, close: &str| token.starts_with(open) && token.ends_with(close);
    within("<|", "|>") || within("<\u{ff5c}", "\u{ff5c}>")
}

/// `a b` for each, whether the file has them so or in pairs.
fn merges(model: &Json) -> Result<Vec<String>, CheckpointError> {
    let list = model["merges"].as_array();
    let list = list.ok_or_else(|| wrong("model.merges", "must be a list"))?;
    let merge = |it: &Json| match (it.as_str(), it.as_array().map(Vec::as_slice)) {
        (Some(text), _) => Some(text.to_owned()),
        (_, Some([left, right])) => {
            let part = |it: &Json| Some(it.as_str()?.replace(' ', SPACE));
            Some(format!("{} {}", part(left)?, part(right)?))
        }
        _ => None,
    };
    let merges = list.iter().map(merge).collect::<Option<Vec<String>>>();
    merges.ok_or_else(|| wrong("model.merges", "must be pairs of tokens"))
}

/// Tokens with a meaning: as the tokenizer's configuration names them, or else as those of the model number
/// them.
fn special(
    keys: &mut Keys,
    folder: &Path,
    config: &Json,
    words: &[(String, Kind)],
) -> Result<(), CheckpointError> {
    let of_model = [json(folder, "generation_config.json")?, json(folder, "config.json")?];
    let numbered = |field: &str| {
        let ids = of_model.iter().flatten().map(|it| &it[field]);
        let ids = ids.flat_map(|it| it.as_array().cloned().unwrap_or_else(|| vec![it.clone()]));
        let ids = ids.filter_map(|it| u32::try_from(it.as_u64()?).ok());
        ids.filter(|it| (*it as usize) < words.len()).collect::<Vec<u32>>()
    };
    let mut end = None;
    for (field, key) in SPECIAL {
        let token = &config[*field];
        let token = token.as_str().or(token["content"].as_str());
        let named = token.and_then(|it| words.iter().position(|word| word.0 == it));
        let ids = numbered(&format!("{field}_id"));
        let id = named.and_then(|it| u32::try_from(it).ok()).or_else(|| ids.first().copied());
        let Some(id) = id else { continue };
        keys.set(key, id);
        if *key == ENDS[0] {
            end = ids.into_iter().find(|it| *it != id);
        }
    }
    if let Some(id) = end {
        keys.set(ENDS[1], id);
    }
    Ok(())
}

/// Whether a token stands before and after every text.
fn around(processor: &Json) -> (bool, bool) {
    let steps = processor["processors"].as_array().map_or(std::slice::from_ref(processor), |it| it);
    let template = steps.iter().find_map(|it| it["single"].as_array());
    let is_token = |it: Option<&Json>| it.is_some_and(|it| it.get("SpecialToken").is_some());
    template.map_or((false, false), |it| (is_token(it.first()), is_token(it.last())))
}

fn template(folder: &Path, config: &Json) -> Result<Option<String>, CheckpointError> {
    let path = folder.join("chat_template.jinja");
    match onnxq_ir::fs::read_text(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(CheckpointError::Io { path, source }),
    }
    Ok(match &config["chat_template"] {
        Json::String(text) => Some(text.clone()),
        Json::Array(list) => {
            let default = list.iter().find(|it| it["name"] == "default");
            default.and_then(|it| Some(it["template"].as_str()?.to_owned()))
        }
        _ => None,
    })
}
