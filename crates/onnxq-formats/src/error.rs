//! Why a checkpoint cannot be read: which file, which tensor, which field.

use std::{io, path::PathBuf};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    onnx::LoadError,
    untrusted::{Untrusted, escape},
};

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} holds no config.json and {count} ONNX files", folder.display())]
    NoModel { folder: PathBuf, count: usize },
    #[error("{file} is no JSON object: {problem}")]
    Json { file: String, problem: String },
    #[error("{}: `{}` {}", Untrusted(file), Untrusted(field), escape(problem))]
    Field { file: String, field: String, problem: String },
    #[error("the configuration contradicts itself: {problem}")]
    Contradiction { problem: String },
    #[error("architecture `{}` is not known", Untrusted(name))]
    Architecture { name: String, known: String },
    #[error(
        "{}: `{}` is {}, which is not implemented",
        Untrusted(file),
        Untrusted(field),
        Untrusted(value)
    )]
    NotImplemented { file: String, field: String, value: String },
    #[error(
        "{}: `{}` is {}, and what it means for `{}` is not known",
        Untrusted(file),
        Untrusted(field),
        Untrusted(value),
        Untrusted(model_type)
    )]
    Unknown { file: String, field: String, value: String, model_type: String },
    #[error("{}: {problem}", Untrusted(file))]
    Weights { file: String, problem: String },
    #[error("{} is no checkpoint, and GGUF files are made of those", path.display())]
    NoCheckpoint { path: PathBuf },
    #[error("no weight of {} is called `{}`, or lies in a node of that name", path.display(), Untrusted(name))]
    Unnamed { path: PathBuf, name: String },
    #[error("there are no GGUF files of `{}`", Untrusted(model_type))]
    NoFamily { model_type: String, known: String },
    #[error("GGUF has no tensor for `{}` in files of `{architecture}`", Untrusted(name))]
    NoName { name: String, architecture: String },
    #[error(
        "{}: `{}` is `{}`, and how such a tokenizer reads texts is not known",
        Untrusted(file),
        Untrusted(field),
        Untrusted(value)
    )]
    Tokenizer { file: String, field: String, value: String, known: String },
    #[error(
        "{}: `{}` {}, which no GGUF file can say",
        Untrusted(file),
        Untrusted(field),
        escape(problem)
    )]
    Unsayable { file: String, field: String, problem: String },
    #[error("{} {what}", Untrusted(file))]
    Container { file: String, what: String },
    #[error(
        "{}: not implemented: tensor `{}` is of type {kind}",
        Untrusted(file),
        Untrusted(tensor)
    )]
    TensorType { file: String, tensor: String, kind: String, known: String },
    #[error("tensor `{}` is missing in the weights of {}", Untrusted(name), folder.display())]
    Missing { name: String, folder: PathBuf },
    #[error(
        "{} of the tensors are used by nothing in `{}`: `{}`",
        count,
        Untrusted(model_type),
        Untrusted(first)
    )]
    Unused { count: usize, first: String, model_type: String },
    #[error(
        "tensor `{}` is {}, but by the configuration it must be {}",
        Untrusted(name),
        Untrusted(actual),
        expected
    )]
    Shape { name: String, actual: String, expected: String },
    #[error("{} has weights in `{}` only, which can run code when it is read", folder.display(), Untrusted(file))]
    Pickle { folder: PathBuf, file: String },
    #[error("{} has a config.json but no model.safetensors", folder.display())]
    NoWeights { folder: PathBuf },
}

impl Diagnostic for CheckpointError {
    fn code(&self) -> Code {
        match self {
            CheckpointError::Load(error) => error.code(),
            CheckpointError::Io { source, .. } => read_code(source),
            CheckpointError::NoModel { .. } | CheckpointError::NoWeights { .. } => Code::E120,
            CheckpointError::Json { .. }
            | CheckpointError::Field { .. }
            | CheckpointError::Contradiction { .. } => Code::E121,
            CheckpointError::Architecture { .. }
            | CheckpointError::NotImplemented { .. }
            | CheckpointError::Unknown { .. }
            | CheckpointError::NoFamily { .. }
            | CheckpointError::NoCheckpoint { .. }
            | CheckpointError::NoName { .. }
            | CheckpointError::Tokenizer { .. }
            | CheckpointError::Unsayable { .. }
            | CheckpointError::Container { .. }
            | CheckpointError::TensorType { .. } => Code::E122,
            CheckpointError::Weights { .. } => Code::E123,
            CheckpointError::Missing { .. }
            | CheckpointError::Unnamed { .. }
            | CheckpointError::Unused { .. }
            | CheckpointError::Shape { .. } => Code::E124,
            CheckpointError::Pickle { .. } => Code::E125,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CheckpointError::Load(error) => error.hint(),
            CheckpointError::Io { path, source } => read_hint(path, source),
            CheckpointError::Tokenizer { known, .. } => Some(format!(
                "pass the tokenizer.json of the original model with --tokenizer; these are known: {known}"
            )),
            CheckpointError::Unsayable { .. } => Some(
                "take tokenizer.json and tokenizer.model out of the folder: the GGUF file is then one for \
                 numbers of tokens"
                    .into(),
            ),
            CheckpointError::NoModel { count: 0, .. } => {
                Some("name the folder of a checkpoint, or an .onnx file".into())
            }
            CheckpointError::NoModel { .. } => Some("name one of the .onnx files".into()),
            CheckpointError::Architecture { known, .. } => Some(format!(
                "these are known: {known}; export others to ONNX, for example with optimum"
            )),
            CheckpointError::NoCheckpoint { .. } => Some(
                "name a GGUF file, the folder with config.json and model.safetensors, or an ONNX model of a \
                 decoder with its config.json beside it"
                    .into(),
            ),
            CheckpointError::NoFamily { known, .. } => {
                Some(format!("these can be written: {known}"))
            }
            CheckpointError::Unknown { .. } => Some(
                "if it changes nothing that the model computes, take the field out of the file"
                    .into(),
            ),
            CheckpointError::TensorType { known, .. } => Some(format!(
                "these can be read: {known}; make the file again in one of them with llama-quantize"
            )),
            CheckpointError::Pickle { .. } | CheckpointError::NoWeights { .. } => Some(
                "save it again as safetensors: model.save_pretrained(folder, \
                 safe_serialization=True)"
                    .into(),
            ),
            CheckpointError::Unnamed { .. } => Some(
                "this export lost the names of its parameters: name the folder of the checkpoint instead, \
                 or an export of optimum, which keeps them"
                    .into(),
            ),
            CheckpointError::Missing { .. } => {
                Some("download the checkpoint again: a file of it is missing or cut short".into())
            }
            _ => None,
        }
    }
}
