//! The files of a folder that say what its tokenizer is.

use std::{io, path::Path};

use serde_json::Value as Json;

use super::{MODEL_FILE, TOKENIZER_FILE};
use crate::CheckpointError;

/// What the files of a tokenizer hold; those that are not there are `None` or null.
#[derive(Default, Debug)]
pub struct Files {
    /// `tokenizer.json`
    pub tokenizer: Option<Json>,
    /// `tokenizer.model`: SentencePiece.
    pub sentencepiece: Option<Vec<u8>>,
    /// `tokenizer_config.json`
    pub config: Json,
    /// `added_tokens.json`: numbers by the tokens.
    pub added: Json,
    /// `generation_config.json` and `config.json`, in the order in which they are asked.
    pub models: Vec<Json>,
    /// `chat_template.jinja`
    pub template: Option<String>,
}

impl Files {
    /// # Errors
    /// What reading the files says, and that there is no tokenizer.
    pub(super) fn read(folder: &Path) -> Result<Files, CheckpointError> {
        let json = |name: &str| json(folder, name);
        let models = [json("generation_config.json")?, json("config.json")?];
        let template = bytes(folder, "chat_template.jinja")?;
        let files = Files {
            tokenizer: json(TOKENIZER_FILE)?,
            sentencepiece: bytes(folder, MODEL_FILE)?,
            config: json("tokenizer_config.json")?.unwrap_or_default(),
            added: json("added_tokens.json")?.unwrap_or_default(),
            models: models.into_iter().flatten().collect(),
            template: template.map(|it| String::from_utf8_lossy(&it).into_owned()),
        };
        if files.tokenizer.is_none() && files.sentencepiece.is_none() {
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(CheckpointError::Io { path: folder.join(TOKENIZER_FILE), source });
        }
        Ok(files)
    }

    /// The chat template, which may lie in a file of its own or in the configuration, there under a name.
    pub(super) fn template(&self) -> Option<&str> {
        self.template.as_deref().or_else(|| match &self.config["chat_template"] {
            Json::String(text) => Some(text),
            Json::Array(list) => {
                let default = list.iter().find(|it| it["name"] == "default");
                default.and_then(|it| it["template"].as_str())
            }
            _ => None,
        })
    }

    /// Numbers that the configurations of the model have in a field.
    pub(super) fn numbers(&self, field: &str, most: usize) -> Vec<u32> {
        let ids = self.models.iter().map(|it| &it[field]);
        let ids = ids.flat_map(|it| it.as_array().map_or(std::slice::from_ref(it), Vec::as_slice));
        let ids = ids.filter_map(|it| u32::try_from(it.as_u64()?).ok());
        ids.filter(|it| (*it as usize) < most).collect()
    }
}

fn bytes(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
    let path = folder.join(name);
    match onnxq_ir::fs::read_file(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CheckpointError::Io { path, source }),
    }
}

fn json(folder: &Path, name: &str) -> Result<Option<Json>, CheckpointError> {
    let Some(bytes) = bytes(folder, name)? else { return Ok(None) };
    let problem = |it: String| CheckpointError::Json { file: name.to_owned(), problem: it };
    match serde_json::from_slice(&bytes) {
        Ok(value @ Json::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(problem("it holds another kind of value".into())),
        Err(error) => Err(problem(error.to_string())),
    }
}
