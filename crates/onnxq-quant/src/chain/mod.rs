//! Chains of nodes that hand each other codes instead of floats.
//!
//! A static plan says which nodes may compute with codes, [`table`] what each operator does with
//! them, [`layout`] which of the nodes then do, and [`emit`] writes `QuantizeLinear` and
//! `DequantizeLinear` around those, of which ONNX Runtime makes integer operators.

pub mod bias;
pub mod emit;
pub mod layout;
pub mod table;

pub use self::{
    layout::{Layout, observed},
    table::role,
};
