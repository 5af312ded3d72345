//! `onnxq plan`: what a recipe would do to each node of a model, and why.

use std::path::PathBuf;

use super::quantize::{InputArgs, RecipeArgs};

/// Say what a recipe would do to each node, why, and how large the result would be
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub input: InputArgs,
}
