//! Running a model on a batch. Nothing outside this folder knows ONNX Runtime.

use std::path::PathBuf;

use crate::tensor::{Tensor, TensorType};

/// An input or output of a loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct IoInfo {
    pub name: String,
    pub ty: TensorType,
}

/// A loaded model.
pub trait Session: Send {
    fn inputs(&self) -> &[IoInfo];
    fn outputs(&self) -> &[IoInfo];
    /// Runs once; `inputs` names each input of the model. Outputs come in the model's order.
    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError>;
}

#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads within an operator; 0 lets the engine choose.
    pub threads: usize,
    /// Off: run the graph as it is written.
    pub optimize: bool,
    /// Where to write the graph that will really execute.
    pub optimized_model: Option<PathBuf>,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { threads: 1, optimize: true, optimized_model: None }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("engine")]
pub struct EngineError;
