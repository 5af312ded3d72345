//! Standard operators behind `DequantizeLinear`: products, and look-ups before or after it.

use super::{
    Bias, Found, Kind, Site, Weights,
    operand::{Channels, activation, constant, dequantize, dequantized, optional},
};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match};

/// `MatMul(x, DequantizeLinear(w))`.
pub(super) fn matmul(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let w = m.operand(node, 1).ok()?;
    is_weight(m, w).then(|| product(m, node, w, false, None, weights))
}

/// `Gemm(x, DequantizeLinear(w), DequantizeLinear(bias))` of a plain product.
pub(super) fn gemm(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let w = m.operand(node, 1).ok()?;
    is_weight(m, w).then(|| {
        let (alpha, beta) = (m.float_attr(node, "alpha", 1.0), m.float_attr(node, "beta", 1.0));
        if alpha != 1.0 || beta != 1.0 || m.int_attr(node, "transA", 0) != 0 {
            return Err(NoMatch("it scales or transposes its operands".into()));
        }
        let bias = optional(m, node, 2).map(Bias::Float);
        product(m, node, w, m.int_attr(node, "transB", 0) != 0, bias, weights)
    })
}

/// Whether a value is a dequantized constant, also transposed.
fn is_weight(m: &Model, value: ValueId) -> bool {
    let value = match m.producer(value, "Transpose") {
        Ok(it) => m.operand(it, 0).unwrap_or(value),
        Err(_) => value,
    };
    let quantized = dequantize(m, value).and_then(|it| m.operand(it, 0));
    quantized.is_ok_and(|it| constant(m, it).is_ok())
}

fn product(
    m: &Model,
    node: NodeId,
    w: ValueId,
    turned: bool,
    bias: Option<Bias>,
    weights: &mut Weights,
) -> Result<Site, NoMatch> {
    let weight = dequantized(m, w, turned, weights)?;
    let kind = Kind::Product { x: activation(m, m.operand(node, 0)?), bias };
    let output = m.node(node).output();
    Ok(Site {
        form: "DequantizeLinear",
        standard: true,
        last: node,
        output,
        requantized: None,
        kind,
        weight,
    })
}

/// `Gather(DequantizeLinear(w), i)` or `DequantizeLinear(Gather(w, i))`.
pub(super) fn gather(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let table = m.operand(node, 0).ok()?;
    if is_weight(m, table) {
        return Some(rows(m, node, weights));
    }
    let (tensor, _) = constant(m, table).ok()?;
    if tensor.dtype.is_float() || tensor.shape.len() != 2 {
        return None;
    }
    let last = m.only_use(m.node(node).output()).ok()?;
    if !m.node(last).op.is("DequantizeLinear")
        || m.operand(last, 0).ok() != Some(m.node(node).output())
    {
        return None;
    }
    Some(rows_of_codes(m, node, last, weights))
}

fn along_rows(m: &Model, node: NodeId) -> Result<(), NoMatch> {
    match m.int_attr(node, "axis", 0) {
        0 => Ok(()),
        it => Err(no_match!("it gathers along axis {it}")),
    }
}

fn rows(m: &Model, node: NodeId, weights: &mut Weights) -> Result<Site, NoMatch> {
    along_rows(m, node)?;
    let weight = dequantized(m, m.operand(node, 0)?, true, weights)?;
    let kind = Kind::Rows { indices: m.operand(node, 1)? };
    let output = m.node(node).output();
    let form = "DequantizeLinear + Gather";
    Ok(Site { form, standard: true, last: node, output, requantized: None, kind, weight })
}

fn rows_of_codes(
    m: &Model,
    node: NodeId,
    last: NodeId,
    weights: &mut Weights,
) -> Result<Site, NoMatch> {
    along_rows(m, node)?;
    let (scales, zero_points) = (m.operand(last, 1)?, optional(m, last, 2));
    if constant(m, scales)?.0.numel() != 1 {
        return Err(NoMatch("its scales belong to columns".into()));
    }
    let quantized = m.operand(node, 0)?;
    let weight = Channels { quantized, scales, zero_points, turned: true, block: None }
        .weight(m, weights)?;
    let kind = Kind::Rows { indices: m.operand(node, 1)? };
    let output = m.node(last).output();
    let form = "Gather + DequantizeLinear";
    Ok(Site { form, standard: true, last, output, requantized: None, kind, weight })
}
