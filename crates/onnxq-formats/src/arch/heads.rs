//! What sentence-transformers puts on top of an encoder.

use serde_json::Value;

use super::Pooling;
use crate::{CheckpointError, Config};

pub(super) enum Step {
    Transformer,
    Pooling,
    Normalize,
}

pub(super) struct Module {
    pub kind: Step,
    /// A folder beside the configuration.
    pub path: String,
}

/// The steps of a `modules.json`, in order.
pub(super) fn steps(json: &[u8]) -> Result<Vec<Module>, CheckpointError> {
    let file = "modules.json";
    let wrong = |problem: String| CheckpointError::Json { file: file.to_owned(), problem };
    let list = match serde_json::from_slice(json) {
        Ok(Value::Array(list)) => list,
        Ok(_) => return Err(wrong("it must hold a list".into())),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let module = |it: &Value| {
        let text = |name: &str| it.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = match text("type").rsplit('.').next().unwrap_or_default() {
            "Transformer" => Step::Transformer,
            "Pooling" => Step::Pooling,
            "Normalize" => Step::Normalize,
            _ => {
                let (file, field) = (file.to_owned(), "type".to_owned());
                let value = text("type").to_owned();
                return Err(CheckpointError::NotImplemented { file, field, value });
            }
        };
        let path = text("path");
        if path.contains("..") || path.starts_with(['/', '\\']) {
            return Err(wrong("a path leads out of the folder".into()));
        }
        Ok(Module { kind, path: path.to_owned() })
    };
    list.iter().map(module).collect()
}

/// How the `config.json` of a pooling says that tokens become one vector.
pub(super) fn pooling(file: &str, json: &[u8]) -> Result<Pooling, CheckpointError> {
    let config = Config::parse(file, json)?;
    config.ignore(&["word_embedding_dimension", "include_prompt", "embedding_dimension"]);
    // Newer files name it, older ones have a flag for each way.
    let named = config.text_if("pooling_mode")?;
    let (cls, mean) = (
        config.flag_or("pooling_mode_cls_token", false)?,
        config.flag_or("pooling_mode_mean_tokens", named.is_none())?,
    );
    config.finish("sentence-transformers")?;
    match (named.as_deref(), cls, mean) {
        (Some("cls"), ..) | (None, true, false) => Ok(Pooling::Cls),
        (Some("mean"), ..) | (None, false, true) => Ok(Pooling::Mean),
        (Some(_), ..) => Err(config.refuse("pooling_mode")),
        (None, ..) => Err(config.refuse("pooling_mode_cls_token")),
    }
}
