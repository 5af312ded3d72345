//! Products of quantized values that yield quantized values: `QLinearMatMul` and
//! `com.microsoft.QGemm`.

use super::{
    Bias, Found, Kind, Site, Weights,
    operand::{Channels, constant, optional, quantized_of},
};
use onnxq_ir::{Model, NoMatch, NodeId};

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`; of two activations: no site.
pub(super) fn matmul(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    constant(m, m.operand(node, 3).ok()?).ok()?;
    Some(product(m, node, weights))
}

fn product(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    let weight = b(m, node, false)?.weight(m, weights)?;
    let kind = Kind::Product { x: a(m, node)?, bias: None };
    let requantized = Some((m.operand(node, 6)?, m.operand(node, 7)?));
    let output = m.node(node).output();
    let form = "QLinearMatMul";
    Ok(Site { form, standard: true, last: node, output, requantized, kind, weight })
}

fn a(m: &Model, node: NodeId) -> Result<super::Input, NoMatch> {
    Ok(quantized_of(m, m.operand(node, 0)?, m.operand(node, 1)?, optional(m, node, 2)))
}

fn b(m: &Model, node: NodeId, turned: bool) -> Result<Channels, NoMatch> {
    let (quantized, scales) = (m.operand(node, 3)?, m.operand(node, 4)?);
    Ok(Channels { quantized, scales, zero_points: optional(m, node, 5), turned, block: None })
}

/// `A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero`: float without the last two.
pub(super) fn gemm(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    constant(m, m.operand(node, 3).ok()?).ok()?;
    Some(gemm_site(m, node, weights))
}

fn gemm_site(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    if m.float_attr(node, "alpha", 1.0) != 1.0 || m.int_attr(node, "transA", 0) != 0 {
        return Err(NoMatch("it scales or transposes its operands".into()));
    }
    let weight = b(m, node, m.int_attr(node, "transB", 0) != 0)?.weight(m, weights)?;
    let bias = optional(m, node, 6).map(Bias::Sums);
    let kind = Kind::Product { x: a(m, node)?, bias };
    let requantized = optional(m, node, 7).zip(optional(m, node, 8));
    let output = m.node(node).output();
    let form = "QGemm";
    Ok(Site { form, standard: false, last: node, output, requantized, kind, weight })
}
