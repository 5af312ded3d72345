//! `onnxq inspect`: what is in a model.

use std::path::PathBuf;

use super::quantize::InputArgs;

/// Show what is in a model
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub view: View,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What to show; a summary if nothing is chosen.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub struct View {
    /// The whole model in the ONNX text syntax
    #[arg(long)]
    pub text: bool,
    /// Inputs and outputs
    #[arg(long)]
    pub io: bool,
    /// Operators and how often they occur
    #[arg(long)]
    pub ops: bool,
    /// Weights with their types, shapes and sizes
    #[arg(long)]
    pub weights: bool,
}
