//! Static int8 in the form that any runtime knows: `QuantizeLinear` and `DequantizeLinear` around
//! float operators. The canonical form is that already.
//!
//! ONNX Runtime makes `QLinearConv`, `QLinearMatMul`, `MatMulIntegerToFloat`, `QLinearAdd`, … of
//! it.

use super::{Format, any_width, static_scheme};
use crate::{
    ops::{Site, Weight},
    region::bias,
};
use onnxq_ir::{
    Model, NoMatch, no_match,
    tensor::{DType, Packing},
};

pub(super) const QDQ: Format = Format {
    name: "qdq",
    help: "int8 weights per channel, activations of fixed ranges; QuantizeLinear, DequantizeLinear",
    packing: Packing::PerChannel,
    place,
    scheme: static_scheme,
    half_scales: false,
    int8_activations: true,
    float_when_loaded: false,
    rules: &[],
    stays_canonical: |_, _| true,
    opset: None,
    fitted: any_width,
};

/// The first with scales per channel.
pub const PER_CHANNEL: i64 = 13;

/// Whether a node can compute with static quantized values.
pub(super) fn place(m: &Model, site: &Site) -> Result<(), NoMatch> {
    match site.kind {
        Weight::MatMul | Weight::Conv => {}
        Weight::ConvTranspose => {
            return Err(no_match!("ONNX Runtime has no int8 kernel for ConvTranspose on a CPU"));
        }
        Weight::Batched(_) => {
            let rank = m.constant(site.weight)?.shape.len();
            return Err(no_match!("its scales are for columns of one matrix, not of rank {rank}"));
        }
        _ => return Err(no_match!("it is a form of MatMul and Conv")),
    }
    let opset = m.opset("");
    if opset < PER_CHANNEL {
        return Err(no_match!(
            "scales per channel need opset {PER_CHANNEL}, the model has {opset}"
        ));
    }
    let dtype = m.constant(site.weight)?.dtype;
    if dtype != DType::F32 {
        return Err(no_match!("it computes {dtype}, and quantized values stand for float32"));
    }
    if let (Weight::Conv, Ok(it)) = (site.kind, m.operand(site.node, 2)) {
        let (count, channels) = (bias::values(m, it)?.len(), m.constant(site.weight)?.shape[0]);
        if count != channels {
            return Err(no_match!("its bias has {count} elements for {channels} channels"));
        }
    }
    Ok(())
}
