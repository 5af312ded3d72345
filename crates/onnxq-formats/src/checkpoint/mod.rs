//! A checkpoint: a folder with a configuration and weights.

mod config;
mod gguf;
mod model;
mod packed;
mod smaller;
mod weights;

use std::path::{Path, PathBuf};

use onnxq_ir::onnx::{ExternalPolicy, Files};

pub(crate) use self::gguf::config as gguf_config;
pub use self::{
    config::Config,
    gguf::{Export, ExportPart, ExportTensor},
    smaller::config_with,
    weights::{Blocks, Weights},
};
use crate::{
    CheckpointError,
    arch::{self, Architecture},
    gguf::{Value, is_gguf},
};

/// A configuration that is understood, and weights that fit it. Nothing of them is in memory but
/// names, shapes and places.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub architecture: Architecture,
    pub weights: Weights,
    /// `config.json` and the files of the weights.
    pub files: Files,
    /// What a GGUF file says of its words.
    pub words: Vec<(String, Value)>,
    /// Whether parameters were found by names that prove nothing.
    pub is_guessed: bool,
}

impl Checkpoint {
    /// Reads a GGUF file and checks all of it: keys, names and shapes.
    pub fn open_gguf(path: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
        gguf::open(path, policy)
    }

    /// Reads what a folder holds, or a GGUF file, and checks all of it: fields, names and shapes.
    pub fn open(folder: &Path, policy: ExternalPolicy) -> Result<Checkpoint, CheckpointError> {
        if is_gguf(folder) {
            return Checkpoint::open_gguf(folder, policy);
        }
        let mut files = Files::new(&folder.join("config.json"), policy)?;
        let config = Config::parse("config.json", &files.map_model()?)?;
        let mut weights = Weights::open(folder, &mut files)?;
        packed::join(&mut weights, &config)?;
        let architecture = arch::describe(&config, folder, &weights)?;
        weights.check(&architecture, folder)?;
        let files = files.built(folder);
        let (folder, words) = (folder.into(), Vec::new());
        Ok(Checkpoint { folder, architecture, weights, files, words, is_guessed: false })
    }
}
