//! Quantization: a plan, canonical Q/DQ, and formats that lower it.

pub mod scheme;
pub mod solve;
pub mod target;
