//! `onnxq doctor`: whether this machine has what onnxq needs.

/// Say what this machine can do: CPU, ONNX Runtime, caches
#[derive(Debug, clap::Args)]
pub struct Args {}
