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

/// `Gather(DequantizeLinear(w), i)`, `DequantizeLinear(Gather(w, i))` or the rows of
/// [`scaled_rows`].
pub(super) fn gather(m: &Model, node: NodeId, weights: &mut Weights) -> Found {
    let table = m.operand(node, 0).ok()?;
    if is_weight(m, table) {
        return Some(rows(m, node, weights));
    }
    let (quantized, turned) = match m.producer(table, "Transpose") {
        Ok(it) => (m.operand(it, 0).ok()?, false),
        Err(_) => (table, true),
    };
    let (tensor, _) = constant(m, quantized).ok()?;
    if tensor.dtype.is_float() || tensor.shape.len() != 2 {
        return None;
    }
    let last = m.only_use(m.node(node).output()).ok()?;
    if m.node(last).op.is("Cast") {
        return scaled_rows(m, node, last, Table { quantized, turned }, weights);
    }
    if !turned {
        return None;
    }
    if !m.node(last).op.is("DequantizeLinear")
        || m.operand(last, 0).ok() != Some(m.node(node).output())
    {
        return None;
    }
    Some(rows_of_codes(m, node, last, weights))
}

/// An int8 table, `[rows, columns]` if it is turned as look-ups want it.
struct Table {
    quantized: ValueId,
    turned: bool,
}

/// `Mul(Cast(Gather(w, i)), Unsqueeze(Gather(s, i)))`: each row has its own scale.
///
/// `None` if what follows is anything else: int8 tables without scales are no quantized weights.
fn scaled_rows(
    m: &Model,
    node: NodeId,
    cast: NodeId,
    table: Table,
    weights: &mut Weights,
) -> Found {
    let mul = m.only_use(m.node(cast).output()).ok().filter(|it| m.node(*it).op.is("Mul"))?;
    let other = (0..2).find(|it| m.operand(mul, *it).ok() != Some(m.node(cast).output()))?;
    let unsqueeze = m.producer(m.operand(mul, other).ok()?, "Unsqueeze").ok()?;
    let gather = m.producer(m.operand(unsqueeze, 0).ok()?, "Gather").ok()?;
    let (indices, scales) = (m.operand(node, 1).ok()?, m.operand(gather, 0).ok()?);
    let by_row = constant(m, scales).is_ok_and(|it| it.0.dtype.is_float() && it.0.shape.len() == 1);
    if m.operand(gather, 1).ok() != Some(indices) || !by_row || !unsqueezes_last(m, unsqueeze) {
        return None;
    }
    let mut found = || {
        along_rows(m, node)?;
        let Table { quantized, turned } = table;
        let channels = Channels { quantized, scales, zero_points: None, turned, block: None };
        let weight = channels.weight(m, weights)?;
        let (kind, output) = (Kind::Rows { indices }, m.node(mul).output());
        let form = GATHER_ROWS;
        Ok(Site { form, standard: true, last: mul, output, requantized: None, kind, weight })
    };
    Some(found())
}

/// What `inspect` calls look-ups of int8 rows with their scales.
pub(crate) const GATHER_ROWS: &str = "Gather + Cast + Mul";

fn unsqueezes_last(m: &Model, node: NodeId) -> bool {
    let axes = m.operand(node, 1).and_then(|it| m.small_i64(it));
    let axes = axes.ok().or_else(|| m.ints_attr(node, "axes").map(<[i64]>::to_vec));
    axes.is_some_and(|it| it == [-1])
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
