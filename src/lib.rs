//! onnxq: float ONNX in; the smallest, fastest, verified model for the target CPU out.

#[cfg(feature = "cli")]
pub mod cli;
