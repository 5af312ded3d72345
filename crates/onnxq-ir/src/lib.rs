//! Tensors, the graph, ONNX files and text, shapes, and a reference evaluator.

pub mod ctx;
pub mod diag;
pub mod digest;
pub mod eval;
pub mod fs;
pub mod human;
pub mod infer;
pub mod ir;
pub mod onnx;
pub mod ops;
pub mod releases;
pub mod suggest;
pub mod tensor;
pub mod text;
pub mod untrusted;

pub use self::ir::*;
