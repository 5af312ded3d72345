//! Choosing by measured loss: candidates are run, and what the model's outputs lose decides.

pub mod activations;
pub mod bits;
pub mod evaluator;
pub mod saturation;
