//! What can be wrong with what is to be served.

use std::{io, net::SocketAddr, path::PathBuf};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{missing_hint, read_hint},
    untrusted::{Untrusted, escape},
};
use onnxq_quant::recipe::{Position, RecipeError};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{} cannot be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Yaml(RecipeError),
    #[error("{at}: {what}")]
    Value { at: Position, what: String, hint: Option<String> },
    #[error("no model is named")]
    NoModels,
    #[error("{} has no name that a request could use", .0.display())]
    NoName(PathBuf),
    #[error("two models are called `{}`", Untrusted(.0))]
    SameName(String),
    #[error("model `{}`: there is nothing at {}", Untrusted(.model), .path.display())]
    Absent { model: String, path: PathBuf },
    #[error("{0} can be reached from other machines, and no token is set")]
    NoToken(SocketAddr),
    #[error("{}", escape(.0))]
    BadToken(String),
    #[error("{address} cannot be listened on")]
    Listen { address: SocketAddr, source: io::Error },
}

impl Diagnostic for ConfigError {
    fn code(&self) -> Code {
        match self {
            ConfigError::Yaml(RecipeError::Syntax { .. } | RecipeError::Key { .. }) => Code::E713,
            ConfigError::Read { .. } | ConfigError::Absent { .. } => Code::E715,
            ConfigError::Yaml(_)
            | ConfigError::Value { .. }
            | ConfigError::NoModels
            | ConfigError::NoName(_)
            | ConfigError::SameName(_) => Code::E714,
            ConfigError::NoToken(_) | ConfigError::BadToken(_) => Code::E716,
            ConfigError::Listen { .. } => Code::E717,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Read { path, source } => read_hint(path, source),
            ConfigError::Yaml(error) => error.hint(),
            ConfigError::Value { hint, .. } => hint.clone(),
            ConfigError::NoModels => {
                Some("name models, or a file of them: onnxq serve --config serve.yaml".into())
            }
            ConfigError::NoName(_) | ConfigError::SameName(_) => Some(
                "give names in a file: `models: {NAME: {path: PATH}}`, and --config FILE".into(),
            ),
            ConfigError::Absent { path, .. } => missing_hint(path),
            ConfigError::NoToken(_) => Some(
                "write a secret of 16 characters or more into a file and give --token-file FILE, or \
                 listen on 127.0.0.1"
                    .into(),
            ),
            ConfigError::BadToken(_) => {
                Some("a token has 16 to 256 printable characters and no spaces".into())
            }
            ConfigError::Listen { .. } => {
                Some("another program may listen there; choose one: --listen 127.0.0.1:8081".into())
            }
        }
    }
}
