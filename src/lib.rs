//! onnxq: float ONNX in; the smallest, fastest, verified model for the target CPU out.

pub mod calibrate;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codes;
pub mod ctx;
pub mod engine;
pub mod eval;
pub mod infer;
pub mod ir;
pub mod lint;
pub mod onnx;
pub mod pipeline;
pub mod quant;
pub mod recipe;
pub mod report;
pub mod rewrite;
pub mod suggest;
pub mod tensor;
pub mod text;
pub mod untrusted;
