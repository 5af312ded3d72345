//! `onnxq validate`: a quantized model against its original, on data.

use std::path::PathBuf;

use super::quantize::{DataArgs, InputArgs};

/// Compare a quantized model with its original on data; exit with 1 if a gate fails
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model
    pub original: PathBuf,
    /// The quantized model
    pub quantized: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Compare outputs only, and measure no times
    #[arg(long)]
    pub no_latency: bool,
    #[command(flatten)]
    pub input: InputArgs,
}
