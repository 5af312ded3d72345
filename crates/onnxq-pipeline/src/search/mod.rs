//! Choosing by measured loss: candidates are run, and what the model's outputs lose decides.

pub(crate) mod activations;
pub(crate) mod bits;
pub(crate) mod evaluator;
pub(crate) mod saturation;
