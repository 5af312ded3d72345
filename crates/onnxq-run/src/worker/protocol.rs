//! What a worker is asked, and what it answers.

use std::{error::Error, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    fault::Fault,
    tensors::{IoHead, TensorHead},
};
use crate::{
    answer::{Event, Generate, Labelled, ModelFacts, Place, Vectors},
    engine::{Examined, KernelSamples, LeftOut, SessionOptions},
};
use onnxq_ir::{diag::Diagnostic, onnx::OpenOptions};
use onnxq_report::Footprint;

/// What a worker shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Say what this machine can do, as `onnxq doctor` does.
    Examine(ExamineJob),
    /// Load a model, run one sample, and say what that took.
    Footprint(FootprintJob),
    /// Load a model that will answer texts.
    Load(LoadJob),
    Generate(Generate),
    Embed {
        texts: Vec<String>,
    },
    Classify {
        texts: Vec<String>,
    },
    /// Register libraries of custom operators.
    Register(Library),
    /// Open a session; its model may be the payload.
    Open(OpenJob),
    /// Run the session on the tensors of the payload.
    Run {
        inputs: Vec<TensorHead>,
    },
    /// The same, and how long that took in place of what came of it.
    Time {
        inputs: Vec<TensorHead>,
    },
    /// From now on, look which instructions runs of the session execute.
    Sample,
    /// What was seen since.
    Sampled,
    /// Close the session.
    Close,
    /// The request with this number is no longer waited for.
    Cancel {
        of: u64,
    },
}

/// ONNX Runtime, and what it is told of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Library {
    pub path: PathBuf,
    /// Libraries of custom operators.
    #[serde(default)]
    pub custom_ops: Vec<PathBuf>,
}

/// What `onnxq doctor` asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExamineJob {
    pub library: Library,
    /// Also run products of integers and look which instructions that takes.
    pub kernels: bool,
}

/// A model that answers texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadJob {
    pub place: Place,
    pub library: Library,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenJob {
    /// `None`: the payload is the model.
    pub model: Option<PathBuf>,
    /// Bytes of the model in the payload.
    pub len: usize,
    /// Of external data, if the payload is the model.
    pub folder: Option<PathBuf>,
    pub options: SessionOptions,
    pub library: Library,
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
    /// There is nothing to say but that it was done.
    Done,
    Examined(Examined),
    Footprint(Footprint),
    Loaded(ModelFacts),
    /// Of several answers to one request; the last one says that it is.
    Event(Event),
    Vectors(Vectors),
    Labelled {
        texts: Vec<Labelled>,
    },
    Opened {
        inputs: Vec<IoHead>,
        outputs: Vec<IoHead>,
        left_out: Vec<LeftOut>,
    },
    Ran {
        outputs: Vec<TensorHead>,
    },
    Timed {
        seconds: f64,
    },
    Sampling {
        started: bool,
    },
    Sampled {
        samples: Option<KernelSamples>,
    },
    /// The engine failed.
    Fault(Fault),
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

/// A request, or an answer to it, with the request's number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Numbered<T> {
    pub number: u64,
    pub body: T,
}
