//! Static int8 products as one `com.microsoft.MatMulIntegerToFloat` each, the bias inside.
//!
//! ONNX Runtime makes the same of the form `qdq`, but leaves the bias to a node of its own, which
//! reads and writes all of the result once more, and fuses that with a Gelu to something slow. A
//! product whose result is needed as quantized values stays in the form `qdq`.

use super::{
    Format, MICROSOFT, any_width, dynamic_fused::with_bias, is_matmul, qdq, static_scheme,
};
use crate::{lower::qlinear::quantized, raise::quantize};
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match, tensor::Packing};
use onnxq_rewrite::Rule;

pub(super) const STATIC_FUSED: Format = Format {
    name: "static_fused",
    help: "int8 weights per channel, activations of fixed ranges; MatMulIntegerToFloat with a bias",
    packing: Packing::PerChannel,
    place: |m, site| {
        is_matmul(m, site)?;
        qdq::place(m, site)
    },
    scheme: static_scheme,
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_STATIC_FUSED],
    // Between quantized values and quantized values.
    stays_canonical: yields_quantized,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

const LOWER_STATIC_FUSED: Rule = Rule {
    name: "lower-static-fused",
    help: "MatMul of quantized values of a fixed range and an int8 weight → MatMulIntegerToFloat",
    root: "MatMul",
    apply: product,
};

/// A product that leaves as float.
pub(super) fn product(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let [a, a_scale, a_zero] = quantized(m, m.operand(node, 0)?, None)?;
    let [b, b_scale, b_zero] = quantized(m, m.operand(node, 1)?, Some(1))?;
    if yields_quantized(m, node) {
        return Err(no_match!("its result is needed as quantized values"));
    }
    let (output, bias) = with_bias(m, node);
    let inputs = [a, b, a_scale, b_scale, a_zero, b_zero].into_iter().chain(bias.map(Ref::from));
    let mut patch = Patch::before(node);
    let op = "com.microsoft.MatMulIntegerToFloat";
    let y = patch.named(&m.node(node).name, "y", op, inputs, Attrs::default());
    Ok(patch.replace(output, y))
}

/// Whether all that reads the result of a node is one `QuantizeLinear`.
fn yields_quantized(m: &Model, node: NodeId) -> bool {
    let user = m.only_use(m.node(node).output());
    user.is_ok_and(|it| quantize(m, m.node(it).output()).is_ok())
}
