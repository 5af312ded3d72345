//! What a worker is asked, and what it answers.

use std::{error::Error, path::PathBuf};

use serde::{Deserialize, Serialize};

use onnxq_ir::{diag::Diagnostic, onnx::OpenOptions};
use onnxq_report::Footprint;

/// What a worker shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Load a model, run one sample, and say what that took.
    Footprint(FootprintJob),
}

/// A model, and what it is run on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FootprintJob {
    pub model: PathBuf,
    pub data: PathBuf,
    /// As in [`DataOptions`](crate::data::DataOptions).
    pub tokenizer: Option<PathBuf>,
    pub preprocess: Option<String>,
    pub open: OpenOptions,
    /// Threads within an operator.
    pub threads: usize,
    /// The library that runs the model.
    pub library: PathBuf,
    /// Libraries of custom operators.
    #[serde(default)]
    pub custom_ops: Vec<PathBuf>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    Footprint(Footprint),
    Refused(Refusal),
}

/// An error of the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// As `onnxq explain` knows it.
    pub code: String,
    /// With its causes, nearest first.
    pub message: String,
    pub hint: Option<String>,
}

impl<E: Diagnostic> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        let mut message = error.to_string();
        let mut cause: Option<&dyn Error> = error.source();
        while let Some(it) = cause {
            message += &format!(": {it}");
            cause = it.source();
        }
        Refusal { code: error.code().name().to_owned(), message, hint: error.hint() }
    }
}
