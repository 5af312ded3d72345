//! Products of integers that are scaled afterwards: what `quantize_dynamic` makes, and the
//! operators that ONNX Runtime fuses it to.

use super::{
    Bias, Found, Input, Kind, Site, Weights,
    operand::{Channels, codes_of, optional},
};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match};

/// `Mul(Cast(MatMulInteger(xq, wq, xz, wz)), Mul(xs, ws))`.
pub fn matmul_integer(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
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
    let codes = m.operand(node, 0)?;
    // Which factor belongs to which operand: the codes know their own scale.
    let own = scale_of(m, codes);
    let (x_scale, w_scale) = match () {
        () if own == Some(a) => (a, b),
        () if own == Some(b) => (b, a),
        () if m.constant(b).is_ok() => (a, b),
        () => (b, a),
    };
    let x = codes_of(m, codes, x_scale, optional(m, node, 2));
    let weight = Channels {
        codes: m.operand(node, 1)?,
        scales: w_scale,
        zeros: optional(m, node, 3),
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

/// The scale that a quantizing node gives its codes.
fn scale_of(m: &Model, codes: ValueId) -> Option<ValueId> {
    if let Ok(node) = m.producer(codes, "DynamicQuantizeLinear") {
        return m.node(node).outputs.get(1).copied();
    }
    m.operand(m.producer(codes, "QuantizeLinear").ok()?, 1).ok()
}

/// `A, B, b_scale, b_zero_point, bias`.
pub fn dynamic_quantize_matmul(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let x = || Ok(Input::Fused(m.operand(node, 0)?));
    Some(fused(m, node, x, [1, 2, 3, 4], "DynamicQuantizeMatMul", weights))
}

/// `A, B, a_scale, b_scale, a_zero_point, b_zero_point, bias`.
pub fn matmul_to_float(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let x = || Ok(codes_of(m, m.operand(node, 0)?, m.operand(node, 2)?, optional(m, node, 4)));
    Some(fused(m, node, x, [1, 3, 5, 6], "MatMulIntegerToFloat", weights))
}

/// A node whose inputs `codes, scales, zeros, bias` stand at the given places.
fn fused(
    m: &Model,
    node: NodeId,
    x: impl FnOnce() -> Result<Input, NoMatch>,
    [codes, scales, zeros, bias]: [usize; 4],
    form: &'static str,
    weights: &mut Weights,
) -> Result<Site, NoMatch> {
    let weight = Channels {
        codes: m.operand(node, codes)?,
        scales: m.operand(node, scales)?,
        zeros: optional(m, node, zeros),
        turned: false,
        block: None,
    };
    let weight = weight.weight(m, weights)?;
    let kind = Kind::Product { x: x()?, bias: optional(m, node, bias).map(Bias::Float) };
    let output = m.node(node).output();
    Ok(Site { form, standard: false, last: node, output, requantized: None, kind, weight })
}
