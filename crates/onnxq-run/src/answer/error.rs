//! Why there is no answer.

use std::path::{Path, PathBuf};

use super::request::Task;
use crate::{data::DataError, engine::EngineError};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    human,
    onnx::LoadError,
    untrusted::Untrusted,
};

#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(
        "`{}` does not say which of its models to run: it has {}",
        shown(folder),
        listed(found)
    )]
    Several { folder: PathBuf, found: Vec<PathBuf> },
    #[error("`{}` holds no ONNX model", shown(folder))]
    NoModel { folder: PathBuf, checkpoint: bool },
    #[error("there is no {what} beside the model; looked for {}", listed(looked))]
    Missing { what: &'static str, flag: &'static str, looked: Vec<PathBuf> },
    #[error("cannot read `{}`", shown(file))]
    Io { file: PathBuf, source: std::io::Error },
    #[error("prompt of {prompt} tokens and {} exceed the context of {context}", after(*.wanted))]
    Context { prompt: usize, wanted: Option<usize>, context: usize },
    #[error("text of {tokens} tokens exceeds the context of {context}")]
    TextTooLong { tokens: usize, context: usize },
    #[error("a context of {asked} tokens is more than the model was made for, which is {most}")]
    ContextTooLarge { asked: usize, most: usize },
    #[error("the model has no chat template, so that messages cannot become a prompt")]
    NoTemplate,
    #[error("the model's chat template takes no such messages: {0}")]
    Template(String),
    #[error("the model does not {}: {reason}", verb(*.task))]
    Task { task: Task, reason: String },
    #[error("{0}")]
    Request(String),
    #[error("the model computes no likelihood for any next token")]
    NotFinite,
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl AnswerError {
    pub(super) fn io(file: &Path) -> impl Fn(std::io::Error) -> AnswerError + '_ {
        move |source| AnswerError::Io { file: file.into(), source }
    }

    pub(super) fn task(task: Task, reason: impl Into<String>) -> AnswerError {
        AnswerError::Task { task, reason: reason.into() }
    }
}

impl Diagnostic for AnswerError {
    fn code(&self) -> Code {
        match self {
            AnswerError::Several { .. }
            | AnswerError::NoModel { .. }
            | AnswerError::Missing { .. } => Code::E624,
            AnswerError::Context { .. } | AnswerError::TextTooLong { .. } => Code::E625,
            AnswerError::NoTemplate | AnswerError::Template(_) => Code::E626,
            AnswerError::Task { .. } => Code::E627,
            AnswerError::Request(_) | AnswerError::ContextTooLarge { .. } => Code::E628,
            AnswerError::NotFinite => Code::E629,
            AnswerError::Io { source, .. } => read_code(source),
            AnswerError::Load(error) => error.code(),
            AnswerError::Data(error) => error.code(),
            AnswerError::Engine(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            AnswerError::Several { found, .. } => {
                format!("name one of them: {}", shown(found.first()?))
            }
            AnswerError::NoModel { folder, checkpoint: true } => {
                let folder = shown(folder);
                format!("it is a checkpoint: `onnxq import {folder} -o OUT` makes a model of it")
            }
            AnswerError::NoModel { .. } => {
                "name an .onnx file, or a folder that `onnxq import` or optimum made".into()
            }
            AnswerError::Missing { flag, .. } => {
                format!("pass --{flag} with the file that came with the model")
            }
            AnswerError::Context { wanted: Some(_), prompt, context } if prompt < context => {
                format!("at most {} more tokens fit", context - prompt)
            }
            AnswerError::Context { .. } | AnswerError::TextTooLong { .. } => {
                "shorten the text".into()
            }
            AnswerError::NoTemplate => {
                "give the prompt as text: `prompt` in place of `messages`, or --raw".into()
            }
            AnswerError::Io { file, source } => return read_hint(file, source),
            AnswerError::Load(error) => return error.hint(),
            AnswerError::Data(error) => return error.hint(),
            AnswerError::Engine(error) => return error.hint(),
            _ => return None,
        })
    }
}

fn after(wanted: Option<usize>) -> String {
    match wanted {
        Some(count) => format!("{count} of the answer"),
        None => "the first of the answer".into(),
    }
}

fn verb(task: Task) -> &'static str {
    match task {
        Task::Generate => "continue texts",
        Task::Classify => "classify texts",
        Task::Embed => "embed texts",
    }
}

fn shown(file: &Path) -> String {
    Untrusted(&file.to_string_lossy()).to_string()
}

fn listed(files: &[PathBuf]) -> String {
    let names: Vec<String> = files.iter().map(|it| format!("`{}`", shown(it))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    human::listed(&names, "and")
}
