//! `onnxq check`: whether a model is sound.

use std::path::PathBuf;

use super::quantize::InputArgs;

/// Read a model, its external data too, and verify its structure
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub input: InputArgs,
}
