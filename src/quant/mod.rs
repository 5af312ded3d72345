//! Quantization: a plan, canonical Q/DQ, and formats that lower it.
//!
//! Four axes meet in [`scheme`] and [`plan`] only: where a weight is ([`ops`]), which numbers it
//! gets ([`solve`]), how activations are treated ([`plan::Activation`]) and how both are stored
//! ([`format`]). Before, [`transform`] may move difficulty between activations and weights.
//!
//! What is quantized already, by any tool, is recognised by [`raise`] and written in another form
//! by [`lower`].

pub mod affine;
pub mod budget;
pub mod chain;
pub mod cost;
pub mod drift;
pub mod error;
pub mod format;
pub mod half_scales;
pub mod insert;
pub mod lower;
pub mod moments;
pub mod observe;
pub mod ops;
pub mod plan;
pub mod raise;
pub mod saturation;
pub mod scheme;
pub mod solve;
pub mod sources;
pub mod stats;
pub mod target;
pub mod tied;
pub mod transform;
pub mod weight;
