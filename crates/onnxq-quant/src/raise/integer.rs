//! Products of integers that are scaled afterwards: what `quantize_dynamic` makes, and the
//! operators that ONNX Runtime fuses it to.

use super::{
    Bias, Found, Input, Kind, Site, Weights,
    operand::{Channels, optional, quantized_of},
};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match};

/// `Mul(Cast(MatMulInteger(xq, wq, xz, wz)), Mul(xs, ws))`.
pub(super) fn matmul_integer(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    Some(scaled(m, node, weights))
}

fn scaled(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    let cast = m.only_use(m.node(node).output())?;
    is(m, cast, "Cast")?;
    let last = m.only_use(m.node(cast).output())?;
    is(m, last, "Mul")?;
    let (_, factors) = m.either_operand(last, "Cast")?;
    let product = m.producer(factors, "Mul")?;
    let (a, b) = (m.operand(product, 0)?, m.operand(product, 1)?);
    let quantized = m.operand(node, 0)?;
    // Which factor belongs to which operand: the quantized values know their own scale.
    let own = scale_of(m, quantized);
    let (x_scale, w_scale) = match () {
        () if own == Some(a) => (a, b),
        () if own == Some(b) => (b, a),
        () if m.constant(b).is_ok() => (a, b),
        () => (b, a),
    };
    let x = quantized_of(m, quantized, x_scale, optional(m, node, 2));
    let weight = Channels {
        quantized: m.operand(node, 1)?,
        scales: w_scale,
        zero_points: optional(m, node, 3),
        turned: false,
        block: None,
    };
    let weight = weight.weight(m, weights)?;
    let output = m.node(last).output();
    let kind = Kind::Product { x, bias: None };
    Ok(Site {
        form: "MatMulInteger",
        standard: true,
        last,
        output,
        requantized: None,
        kind,
        weight,
    })
}

fn is(m: &Model, node: NodeId, op: &str) -> Result<(), NoMatch> {
    if m.node(node).op.is(op) {
        return Ok(());
    }
    Err(no_match!("its sums go to {}, not to {op}", m.node(node).op))
}

/// The scale that a quantizing node gives its quantized values.
fn scale_of(m: &Model, quantized: ValueId) -> Option<ValueId> {
    if let Ok(node) = m.producer(quantized, "DynamicQuantizeLinear") {
        return m.node(node).outputs.get(1).copied();
    }
    m.operand(m.producer(quantized, "QuantizeLinear").ok()?, 1).ok()
}

/// `A, B, b_scale, b_zero_point, bias`.
pub(super) fn dynamic_quantize_matmul(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let x = || Ok(Input::Fused(m.operand(node, 0)?));
    Some(fused(m, node, x, [1, 2, 3, 4], "DynamicQuantizeMatMul", weights))
}

/// `A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias`.
pub(super) fn matmul_to_float(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let x = || Ok(quantized_of(m, m.operand(node, 0)?, m.operand(node, 2)?, optional(m, node, 4)));
    Some(fused(m, node, x, [1, 3, 5, 6], "MatMulIntegerToFloat", weights))
}

/// A node whose inputs `quantized, scales, zero_points, bias` stand at the given places.
fn fused(
    m: &Model,
    node: NodeId,
    x: impl FnOnce() -> Result<Input, NoMatch>,
    [quantized, scales, zero_points, bias]: [usize; 4],
    form: &'static str,
    weights: &mut Weights,
) -> Result<Site, NoMatch> {
    let weight = Channels {
        quantized: m.operand(node, quantized)?,
        scales: m.operand(node, scales)?,
        zero_points: optional(m, node, zero_points),
        turned: false,
        block: None,
    };
    let weight = weight.weight(m, weights)?;
    let kind = Kind::Product { x: x()?, bias: optional(m, node, bias).map(Bias::Float) };
    let output = m.node(node).output();
    Ok(Site { form, standard: false, last: node, output, requantized: None, kind, weight })
}
