//! Quantized (QDQ) regions: nodes that hand each other quantized values instead of floats.
//!
//! A static plan says which nodes may compute with quantized values, [`table`] what each operator
//! does with them, [`layout`] which of the nodes then do, and [`emit`] writes `QuantizeLinear` and
//! `DequantizeLinear` around those, of which ONNX Runtime makes integer operators.

pub(crate) mod bias;
pub(crate) mod emit;
pub(crate) mod layout;
pub(crate) mod table;

pub(crate) use self::table::inputs;
pub use self::{
    layout::{Layout, observed},
    table::{Role, role},
};
