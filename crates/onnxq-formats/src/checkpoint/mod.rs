//! A checkpoint: a folder with a configuration and weights.

mod config;
mod gguf;
mod packed;
mod smaller;
mod weights;

use std::path::{Path, PathBuf};

use onnxq_ir::onnx::{ExternalPolicy, Files};

pub use self::{config::Config, smaller::config_with, weights::Weights};
use crate::{
    CheckpointError,
    arch::{self, Architecture},
    gguf::is_gguf,
};

/// A configuration that is understood, and weights that fit it. Nothing of them is in memory but
/// names, shapes and places.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub architecture: Architecture,
    pub weights: Weights,
    /// `config.json` and the files of the weights.
    pub files: Files,
}

impl Checkpoint {
    /// Reads a GGUF file and checks all of it: keys, names and shapes.
    pub fn open_gguf(path: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
        gguf::open(path, policy)
    }

    /// Reads what a folder holds and checks all of it: fields, names and shapes.
    pub fn open(folder: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
        if is_gguf(folder) {
            return Err(CheckpointError::NoFolder { path: folder.into() });
        }
        let mut files = Files::new(&folder.join("config.json"), policy)?;
        let config = Config::parse("config.json", &files.map_model()?)?;
        let mut weights = Weights::open(folder, &mut files)?;
        packed::join(&mut weights, &config)?;
        let architecture = arch::describe(&config, folder, &weights)?;
        weights.check(&architecture, folder)?;
        let files = files.built(folder);
        Ok(Checkpoint { folder: folder.into(), architecture, weights, files })
    }
}
