//! What can be wrong with a recipe.

use std::{io, path::Path};

use super::{Position, load::MAX_BYTES, words};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::read_hint,
    suggest::suggest,
    untrusted::Untrusted,
};

#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("there is no recipe `{0}`")]
    Unknown(String),
    #[error("recipe `{file}` cannot be read")]
    Read { file: String, source: io::Error },
    #[error("recipe `{0}` is larger than {MAX_BYTES} bytes")]
    TooLarge(String),
    /// Not YAML, or YAML that recipes do not use.
    #[error("{at}: {what}")]
    Syntax { at: Position, what: String },
    #[error("{at}: unknown key `{}`", Untrusted(.key))]
    Key { at: Position, key: String, known: Vec<&'static str> },
    #[error("{at}: unknown {what} `{}`", Untrusted(.word))]
    Word { at: Position, what: String, word: String, known: Vec<&'static str> },
    #[error("{at}: {what}")]
    Value { at: Position, what: String },
    #[error("{at}: pattern `{}` matches no node", Untrusted(.pattern))]
    NoMatch { at: Position, pattern: String, near: Option<String> },
    /// Settings that are fine each but not together.
    #[error("{at}: {what}")]
    Conflict { at: Position, what: String },
    #[error("{at}: `extends` leads back to `{name}`")]
    Cycle { at: Position, name: String },
}

impl RecipeError {
    pub fn value(at: Position, what: impl Into<String>) -> RecipeError {
        RecipeError::Value { at, what: what.into() }
    }

    /// The same error, found in what was typed on the command line.
    pub(super) fn moved_to(mut self, position: Position) -> RecipeError {
        use RecipeError::*;
        match &mut self {
            Unknown(_) | Read { .. } | TooLarge(_) => {}
            Syntax { at, .. }
            | Key { at, .. }
            | Word { at, .. }
            | Value { at, .. }
            | NoMatch { at, .. }
            | Conflict { at, .. }
            | Cycle { at, .. } => *at = position,
        }
        self
    }
}

impl Diagnostic for RecipeError {
    fn code(&self) -> Code {
        match self {
            RecipeError::Unknown(_) | RecipeError::Read { .. } => Code::E705,
            RecipeError::TooLarge(_) | RecipeError::Syntax { .. } | RecipeError::Key { .. } => {
                Code::E701
            }
            RecipeError::Word { .. } | RecipeError::Value { .. } | RecipeError::Cycle { .. } => {
                Code::E703
            }
            RecipeError::NoMatch { .. } => Code::E702,
            RecipeError::Conflict { .. } => Code::E704,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RecipeError::Unknown(name) => Some(words::meant(name)),
            RecipeError::Read { file, source } => read_hint(Path::new(file), source),
            RecipeError::Key { key: word, known, .. } | RecipeError::Word { word, known, .. } => {
                Some(match suggest(word, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                })
            }
            RecipeError::NoMatch { near, .. } => {
                let advice = "add `optional: true` if the entry is meant for other models";
                Some(match near {
                    Some(near) => format!("did you mean `{}`? Otherwise {advice}", Untrusted(near)),
                    None => advice.to_owned(),
                })
            }
            _ => None,
        }
    }
}
