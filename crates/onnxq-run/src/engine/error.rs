//! What can go wrong between a model and its outputs.

use std::{path::PathBuf, time::Duration};

use super::{InstallError, NotFound};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    tensor::{DType, TensorError, TensorType},
    untrusted::{Untrusted, escape},
};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    NotFound(NotFound),
    #[error("ONNX Runtime was not found and could not be installed")]
    Install(#[source] InstallError),
    #[error("ONNX Runtime at `{}` could not be loaded: {reason}", .path.display())]
    Load { path: PathBuf, reason: String },
    #[error("this process already runs ONNX Runtime from `{}`, so `{}` cannot be loaded", .loaded.display(), .requested.display())]
    OtherLibrary { loaded: PathBuf, requested: PathBuf },
    #[error("this build of onnxq cannot run models: it lacks the feature `runtime`")]
    Disabled,
    #[error("the custom operators of `{}` cannot be registered: {}", .path.display(), escape(.reason))]
    CustomOps { path: PathBuf, reason: String },
    #[error("ONNX Runtime {version} refused {model}: {}", escape(.message))]
    Refused { model: String, version: String, message: String },
    #[error("{model} needs a newer ONNX Runtime than {version}: {}", escape(.message))]
    TooOld { model: String, version: String, message: String },
    #[error("ONNX Runtime failed to run the model: {}", escape(.0))]
    Run(String),
    #[error("the process that ran {model} failed while {when}: {how}")]
    Died { model: String, when: String, how: String },
    #[error("{model} took longer than {} s while {when}", .limit.as_secs_f64())]
    TooLong { model: String, when: String, limit: Duration },
    /// What an engine in another process said.
    #[error("{}", escape(.message))]
    Told { code: String, message: String, hint: Option<String> },
    #[error("the run was ended from outside")]
    Stopped,
    #[error("the model's cache cannot be used: {0}")]
    Cache(String),
    #[error("`{}` is no tensor but {ty}", Untrusted(.name))]
    NotTensor { name: String, ty: String },
    #[error("`{}` has element type {dtype}, which ONNX Runtime cannot exchange", Untrusted(.name))]
    Element { name: String, dtype: String },
    #[error("input `{}` could not be read", Untrusted(.name))]
    Unreadable { name: String, source: TensorError },
    #[error("no data for input `{}`: given are {}", Untrusted(.name), list(.given))]
    MissingInput { name: String, given: Vec<String> },
    #[error("the model has no input `{}`: its inputs are {}", Untrusted(.name), list(.expected))]
    UnknownInput { name: String, expected: Vec<String> },
    #[error("input `{}` takes {}, not {actual}", Untrusted(.name), Untrusted(&.expected.to_string()))]
    InputType { name: String, expected: TensorType, actual: DType },
    #[error("input `{}` takes {}, not shape {actual:?}", Untrusted(.name), Untrusted(&.expected.to_string()))]
    InputShape { name: String, expected: TensorType, actual: Vec<usize> },
    #[error("cannot read back what the model computed")]
    Kept(#[source] std::io::Error),
    #[error("the reference evaluator failed")]
    Eval(#[from] onnxq_ir::eval::EvalError),
}

impl Diagnostic for EngineError {
    fn code(&self) -> Code {
        match self {
            EngineError::NotFound(not_found) => not_found.code(),
            EngineError::Install(error) => error.code(),
            EngineError::Eval(error) => error.code(),
            EngineError::Load { .. } | EngineError::OtherLibrary { .. } | EngineError::Disabled => {
                Code::E801
            }
            EngineError::CustomOps { .. } => Code::E805,
            EngineError::Kept(_) => Code::E901,
            EngineError::TooOld { .. } => Code::E802,
            EngineError::Died { .. } => Code::E806,
            EngineError::TooLong { .. } => Code::E808,
            EngineError::Told { code, .. } => code.parse().unwrap_or(Code::E803),
            EngineError::Refused { .. }
            | EngineError::Run(_)
            | EngineError::Stopped
            | EngineError::Cache(_)
            | EngineError::NotTensor { .. }
            | EngineError::Element { .. }
            | EngineError::Unreadable { .. } => Code::E803,
            EngineError::InputShape { .. } => Code::E603,
            EngineError::InputType { .. } => Code::E604,
            EngineError::MissingInput { .. } | EngineError::UnknownInput { .. } => Code::E607,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            EngineError::NotFound(not_found) => not_found.hint(),
            EngineError::Install(error) => error.hint(),
            EngineError::Told { hint, .. } => hint.clone(),
            EngineError::TooLong { .. } => {
                Some("give it more time with --run-timeout 1h, or less to do with --samples".into())
            }
            EngineError::TooOld { .. } => Some("see `onnxq doctor` for the library in use".into()),
            EngineError::CustomOps { .. } => Some(
                "--custom-ops takes a shared library for this system that exports `RegisterCustomOps` \
                 and needs nothing that this process lacks, as modules of Python do"
                    .into(),
            ),
            EngineError::Refused { message, .. } if is_unknown_operator(message) => {
                Some("if a library has this operator, name it with --custom-ops LIB".into())
            }
            _ => None,
        }
    }
}

/// What ONNX Runtime says of an operator that it does not have.
fn is_unknown_operator(message: &str) -> bool {
    message.contains("is not a registered function/op")
        || message.contains("No opset import for domain")
        || message.contains("No Op registered for")
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = names.iter().map(|it| format!("`{}`", Untrusted(it))).collect();
    names.join(", ")
}
