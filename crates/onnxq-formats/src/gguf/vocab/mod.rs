//! The tokenizer of a GGUF file as the files of Hugging Face, and those files as keys of a GGUF file.

mod pre;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use serde_json::{Value as Json, json};

pub use self::{
    read::read,
    write::{Files, Written, keys},
};
use super::{File, Value};
use crate::{CheckpointError, checkpoint};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const REMOVE_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
const TEMPLATE: &str = "tokenizer.chat_template";
/// Bytes of a token that is merged of others: each of its cuts is tried. Published ones have about 50.
const LONGEST: usize = 1024;
/// What stands for a space in pieces of SentencePiece.
const SPACE: &str = "\u{2581}";

/// Tokens with a meaning: what configurations call them, and their keys.
const SPECIAL: &[(&str, &str)] = &[
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
];
/// Tokens that end an answer. A file has the second if the end of a turn is another than that of a text.
const ENDS: &[&str] =
    &["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What a token is, as `tokenizer.ggml.token_type` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    fn numbered(number: i128) -> Option<Kind> {
        Some(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// The files that lie beside a checkpoint of Hugging Face.
#[derive(Debug)]
pub struct Vocab {
    /// `tokenizer.json`
    pub tokenizer: Json,
    /// `tokenizer_config.json`
    pub tokenizer_config: Json,
    /// `generation_config.json`
    pub generation_config: Json,
}

/// The tokenizer of the GGUF file at a path; `None` if it has none.
///
/// # Errors
/// What reading the file says, E121 of keys that contradict each other, E122 of a tokenizer that is not
/// known.
pub fn open(path: &Path) -> Result<Option<Vocab>, CheckpointError> {
    let (file, name) = parsed(path)?;
    read(&file, &name)
}

/// Every file that the GGUF file at a path stands for, by its name in a folder.
///
/// # Errors
/// As [`open`] says, and of keys that describe no model.
pub fn files(path: &Path) -> Result<Vec<(&'static str, Json)>, CheckpointError> {
    let (file, name) = parsed(path)?;
    let mut files = vec![("config.json", checkpoint::gguf_config(&file, &name)?)];
    if let Some(mut it) = read(&file, &name)? {
        let architecture = file.value("general.architecture").and_then(Value::text);
        let key = format!("{}.context_length", architecture.unwrap_or_default());
        let length = file.value(&key).and_then(Value::integer);
        if let Some(tokens) = length.and_then(|length| u64::try_from(length).ok()) {
            it.tokenizer_config["model_max_length"] = json!(tokens);
        }
        files.push(("generation_config.json", it.generation_config));
        files.push(("tokenizer.json", it.tokenizer));
        files.push(("tokenizer_config.json", it.tokenizer_config));
    }
    Ok(files)
}

/// Whether a path is a GGUF file with a tokenizer in it.
pub fn is_in(path: &Path) -> bool {
    super::is_gguf(path) && parsed(path).is_ok_and(|(file, _)| has_tokenizer(&file))
}

/// Whether a file brings a tokenizer: one for numbers of tokens names the model `none`, as llama.cpp does.
fn has_tokenizer(file: &File) -> bool {
    file.value(MODEL).is_some_and(|model| model.text() != Some("none"))
}

fn parsed(path: &Path) -> Result<(File, String), CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.into(), source };
    let bytes = onnxq_ir::fs::open_file(path).and_then(|it| onnxq_ir::fs::map(&it)).map_err(io)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok((File::parse(&bytes, &name)?, name))
}
