//! Models that are no ONNX files: checkpoints of Hugging Face, and GGUF files of llama.cpp.
//!
//! `checkpoint` reads a folder (`config.json`, safetensors), `arch` says which transformer a
//! configuration means, and `build` makes the graph of it. [`open`] does all three, and reads ONNX
//! files like `onnxq_ir::onnx::open`: whatever takes a model takes a folder.

mod arch;
mod build;
mod checkpoint;
mod error;
pub mod gguf;

use std::path::{Path, PathBuf};

use onnxq_ir::onnx::{self, ExternalPolicy, Loaded, OpenOptions};

pub use self::{
    arch::{
        ARCHITECTURES, Activation, Architecture, Attention, Block, Embedding, Family, Head, Linear,
        Mlp, Norm, NormKind, Param, Places, Pooling, Positions, Qkv, Rotary, Sublayer, Top,
    },
    build::{Form, build},
    checkpoint::{
        Blocks, Checkpoint, Config, Export, ExportPart, ExportTensor, Weights, config_with,
    },
    error::CheckpointError,
};

/// Reads a model: a file as [`onnx::open`] does, a GGUF file and a folder with a `config.json` as a checkpoint, and a
/// folder with a single ONNX file, or a `model.onnx`, as that.
///
/// # Errors
/// What [`onnx::open`] says of files, and E120 to E125 of folders and GGUF files.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Loaded, CheckpointError> {
    if !path.is_dir() {
        if gguf::is_gguf(path) {
            return build(&Checkpoint::open_gguf(path, options.external)?, Form::Standard);
        }
        return Ok(onnx::open(path, options)?);
    }
    match model_in(path)? {
        Some(file) => Ok(onnx::open(&file, options)?),
        None => {
            let checkpoint = Checkpoint::open(path, options.external)?;
            build(&checkpoint, Form::Standard)
        }
    }
}

/// Reads a checkpoint: a GGUF file, a folder with a `config.json`, or an ONNX model that was exported
/// from one which lies beside it.
///
/// # Errors
/// What [`onnx::open`] says of models, and E120 to E125.
pub fn open_checkpoint(path: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
    if path.is_dir() {
        return match model_in(path)? {
            Some(file) => Checkpoint::open_model(&file, policy),
            None => Checkpoint::open(path, policy),
        };
    }
    match gguf::is_gguf(path) {
        true => Checkpoint::open_gguf(path, policy),
        false => Checkpoint::open_model(path, policy),
    }
}

/// The ONNX file that a folder stands for; `None` if it is a checkpoint.
fn model_in(folder: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let usual = folder.join("model.onnx");
    if usual.is_file() {
        return Ok(Some(usual));
    }
    if folder.join("config.json").is_file() {
        return Ok(None);
    }
    let io = |source| CheckpointError::Io { path: folder.into(), source };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|it| it == "onnx") && path.is_file() {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found.pop()),
        count => Err(CheckpointError::NoModel { folder: folder.into(), count }),
    }
}
