//! Quantization: a plan, canonical Q/DQ, and formats that lower it.
//!
//! Four axes meet in [`onnxq_numerics::scheme`] and [`plan`] only: where a weight is ([`ops`]),
//! which numbers it gets ([`onnxq_numerics::solve`]), how activations are treated
//! ([`plan::Activation`]) and how both are stored ([`mod@format`]). Before, [`transform`] may move
//! difficulty between activations and weights.
//!
//! What is quantized already, by any tool, is recognised by [`raise`] and written in another form
//! by [`lower`].

pub mod as_stored;
pub mod budget;
mod chain;
pub mod cost;
pub mod format;
mod half_scales;
pub mod insert;
pub mod lower;
pub mod ops;
pub mod plan;
pub mod raise;
pub mod recipe;
pub mod region;
pub mod saturation;
pub mod sources;
mod target;
pub mod tied;
pub mod transform;
pub mod weight;
pub mod window;
