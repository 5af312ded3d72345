//! Operators of quantized values without a weight of their own, or with that of a convolution, and
//! the same operators between `DequantizeLinear` and `QuantizeLinear`: one row each, read in both
//! ways.
//!
//! ```text
//! QLinearAdd(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)
//!   ↔   QuantizeLinear(Add(DequantizeLinear(a …), DequantizeLinear(b …)), y_scale, y_zero)
//! ```

use super::{super::format::MICROSOFT, Between, Form, LowerReport, emit::only, main_nodes};
use crate::raise::{dequantize, optional, quantize};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Tensor},
};

/// One operator in both forms. Each operand is three inputs: quantized values, scale, zero.
struct QLinear {
    op: &'static str,
    float: &'static str,
    operands: Operands,
    /// Where the scale of the result is; its zero follows.
    result: usize,
}

enum Operands {
    At(&'static [usize]),
    /// As many as there are, from here on.
    From(usize),
    /// At 0 and 3, of which the second is a weight, and a bias of int32.
    Conv,
}

/// In alphabetical order.
const TABLE: &[QLinear] = &[
    row("QLinearConv", "Conv", Operands::Conv, 6),
    row("QLinearMatMul", "MatMul", Operands::At(&[0, 3]), 6),
    row("com.microsoft.QLinearAdd", "Add", Operands::At(&[0, 3]), 6),
    row("com.microsoft.QLinearAveragePool", "AveragePool", Operands::At(&[0]), 3),
    row("com.microsoft.QLinearConcat", "Concat", Operands::From(2), 0),
    row("com.microsoft.QLinearGlobalAveragePool", "GlobalAveragePool", Operands::At(&[0]), 3),
    row("com.microsoft.QLinearLeakyRelu", "LeakyRelu", Operands::At(&[0]), 3),
    row("com.microsoft.QLinearMul", "Mul", Operands::At(&[0, 3]), 6),
    row("com.microsoft.QLinearSigmoid", "Sigmoid", Operands::At(&[0]), 3),
    row("com.microsoft.QLinearSoftmax", "Softmax", Operands::At(&[0]), 3),
];

const fn row(op: &'static str, float: &'static str, operands: Operands, result: usize) -> QLinear {
    QLinear { op, float, operands, result }
}

/// Brings all of these operators to `form`, as far as it takes them at all.
pub(super) fn convert(m: &mut Model, form: &Form, report: &mut LowerReport) {
    for node in main_nodes(m) {
        if !m.is_live(node) {
            continue;
        }
        let found = match form.between {
            Between::Keep => return,
            Between::Quantized => TABLE
                .iter()
                .find(|it| m.node(node).op.is(it.float))
                .map(|it| (it, lower(m, node, it), format!("DequantizeLinear → {}", it.op))),
            between => TABLE
                .iter()
                .filter(|it| between == Between::Float || it.op.contains('.'))
                .find(|it| m.node(node).op.is(it.op))
                .map(|it| (it, raise(m, node, it), format!("{} → {}", it.op, it.float))),
        };
        match found {
            Some((_, Ok(patch), what)) => {
                patch.apply(m);
                report.count(what);
            }
            Some((_, Err(reason), _)) if is_quantized(m, node) => report.left.push((node, reason)),
            None if is_unknown(m, node, form.between) => {
                let reason = no_match!("no such form of {} is known here", m.node(node).op);
                report.left.push((node, reason));
            }
            _ => {}
        }
    }
}

/// From quantized values to quantized values: worth a word if it stays.
fn is_quantized(m: &Model, node: NodeId) -> bool {
    let mut inputs = m.node(node).inputs.iter().flatten().filter(|it| m.constant(**it).is_err());
    let is_quantized = |it: &ValueId| dequantize(m, *it).is_ok();
    let takes = inputs.clone().next().is_some() && inputs.all(is_quantized);
    let output = m.node(node).output();
    let yields = m.only_use(output).is_ok_and(|it| quantize(m, m.node(it).output()).is_ok());
    takes && yields || TABLE.iter().any(|it| m.node(node).op.is(it.op))
}

/// Operators of quantized values that the table lacks, and operators between pairs that have no
/// form there.
fn is_unknown(m: &Model, node: NodeId, between: Between) -> bool {
    let op = &m.node(node).op;
    let of_quantized = &*op.domain == MICROSOFT
        && (op.name.starts_with("QLinear") || &*op.name == "NhwcMaxPool")
        && !TABLE.iter().any(|it| op.is(it.op));
    match between {
        Between::Quantized => {
            let own = TABLE.iter().any(|it| op.is(it.op)) || of_quantized;
            let pair = op.is("DequantizeLinear") || op.is("QuantizeLinear");
            !own && !pair && is_quantized(m, node)
        }
        _ => of_quantized,
    }
}

impl QLinear {
    fn starts(&self, m: &Model, node: NodeId) -> Vec<usize> {
        match self.operands {
            Operands::At(list) => list.to_vec(),
            Operands::Conv => vec![0, 3],
            Operands::From(first) => (first..m.node(node).inputs.len()).step_by(3).collect(),
        }
    }
}

/// The float operator between pairs.
fn raise(m: &Model, node: NodeId, row: &QLinear) -> Result<Patch, NoMatch> {
    if m.int_attr(node, "channels_last", 0) != 0 {
        return Err(NoMatch("its channels are last".into()));
    }
    if row.float == "Softmax" && (m.int_attr(node, "opset", 13) < 13) != (m.opset("") < 13) {
        return Err(NoMatch("it means the Softmax of another operator set".into()));
    }
    let mut patch = Patch::before(node);
    let mut inputs = Vec::new();
    for (index, start) in row.starts(m, node).into_iter().enumerate() {
        inputs.push(dequantized(m, node, start, index, row, &mut patch)?);
    }
    if let (Operands::Conv, Some(bias)) = (&row.operands, optional(m, node, 8)) {
        inputs.push(bias_of(m, node, bias, &mut patch)?);
    }
    let mut attrs = m.node(node).attrs.clone();
    ["channels_last", "opset"].iter().for_each(|it| drop(attrs.remove(it)));
    let output = m.node(node).output();
    let stem = m.value(output).name.to_string();
    let y = patch.named(&m.node(node).name, &format!("{stem}_float"), row.float, inputs, attrs);
    let mut inputs = vec![y, m.operand(node, row.result)?.into()];
    inputs.extend(optional(m, node, row.result + 1).map(Ref::from));
    let y = patch.step(&stem, "QuantizeLinear", inputs, Attrs::default());
    Ok(patch.replace(output, y))
}

fn dequantized(
    m: &Model,
    node: NodeId,
    start: usize,
    index: usize,
    row: &QLinear,
    patch: &mut Patch,
) -> Result<Ref, NoMatch> {
    let (quantized, scale) = (m.operand(node, start)?, m.operand(node, start + 1)?);
    let attrs = match m.constant(scale) {
        Ok(it) if it.numel() == 1 => Attrs::default(),
        Ok(_) if index == 0 || m.opset("") < 13 => {
            return Err(NoMatch("its scales per channel need opset 13".into()));
        }
        Ok(_) => {
            let axis = if matches!(row.operands, Operands::Conv) { 0i64 } else { -1 };
            Attrs::default().with("axis", axis)
        }
        Err(_) if m.rank(scale) == Some(0) => Attrs::default(),
        Err(reason) => return Err(reason),
    };
    let mut inputs: Vec<Ref> = vec![quantized.into(), scale.into()];
    inputs.extend(optional(m, node, start + 2).map(Ref::from));
    let name = format!("{}_dq", m.value(quantized).name);
    Ok(patch.step(&name, "DequantizeLinear", inputs, attrs))
}

/// int32 sums have the scale of both operands together.
fn bias_of(m: &Model, node: NodeId, bias: ValueId, patch: &mut Patch) -> Result<Ref, NoMatch> {
    let scales = product_of_scales(m, m.operand(node, 1)?, m.operand(node, 4)?)?;
    let of_one = scales.len() == 1;
    let shape = if of_one { vec![] } else { vec![scales.len()] };
    let name = m.value(bias).name.to_string();
    let scales = patch.constant(&format!("{name}_scale"), Tensor::from_f32(&shape, scales));
    let attrs = if of_one { Attrs::default() } else { Attrs::default().with("axis", 0i64) };
    Ok(patch.step(&format!("{name}_dq"), "DequantizeLinear", [bias.into(), scales], attrs))
}

fn product_of_scales(m: &Model, x: ValueId, w: ValueId) -> Result<Vec<f32>, NoMatch> {
    let x = only(m, x)?;
    Ok(m.small_f32(w)?.into_iter().map(|it| x * it).collect())
}

/// The operator of quantized values in place of a float operator between `DequantizeLinear` and
/// `QuantizeLinear`.
pub(crate) fn of_quantized(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let op = &m.node(node).op;
    let row = TABLE.iter().find(|it| op.is(it.float));
    lower(m, node, row.ok_or_else(|| no_match!("{op} has no form for quantized values"))?)
}

/// The operator of quantized values. Its result must go to one `QuantizeLinear` only.
fn lower(m: &Model, node: NodeId, row: &QLinear) -> Result<Patch, NoMatch> {
    let last = m.only_use(m.node(node).output())?;
    quantize(m, m.node(last).output())?;
    let result = [m.operand(last, 1)?, m.operand(last, 2)?];
    only(m, result[0])?;
    let conv = matches!(row.operands, Operands::Conv);
    let mut operands = Vec::new();
    let count = if conv { 2 } else { m.node(node).inputs.len() };
    for index in 0..count {
        let channels = match row.op {
            "QLinearConv" if index == 1 => Some(0),
            "QLinearMatMul" if index == 1 => Some(1),
            _ => None,
        };
        operands.extend(quantized(m, m.operand(node, index)?, channels)?);
    }
    let result = result.map(Ref::from);
    let mut inputs = match row.result {
        0 => [&result[..], &operands].concat(),
        _ => [&operands[..], &result].concat(),
    };
    if let (true, Some(bias)) = (conv, optional(m, node, 2)) {
        inputs.push(sums(m, &operands, bias)?);
    }
    let mut attrs = m.node(node).attrs.clone();
    if row.float == "Softmax" {
        attrs = attrs.with("opset", m.opset(""));
    }
    let output = m.node(last).output();
    let stem = m.value(output).name.to_string();
    let mut patch = Patch::before(last);
    let y = patch.named(&m.node(node).name, &stem, row.op, inputs, attrs);
    Ok(patch.replace(output, y))
}

/// Quantized values, scale and zero of a dequantized operand; `channels` is the axis that scales
/// may go along.
pub(crate) fn quantized(
    m: &Model,
    value: ValueId,
    channels: Option<i64>,
) -> Result<[Ref; 3], NoMatch> {
    let dq = dequantize(m, value)?;
    let (quantized, scale, zero) = (m.operand(dq, 0)?, m.operand(dq, 1)?, m.operand(dq, 2)?);
    let (of_one, axis) = (m.constant(scale)?.numel() == 1, m.int_attr(dq, "axis", 1));
    if m.int_attr(dq, "block_size", 0) != 0 || !(of_one || channels == Some(axis)) {
        return Err(no_match!("`{}` has scales per channel or block", m.value(value).name));
    }
    match m.dtype(quantized).or_else(|| m.dtype(zero)) {
        Some(DType::U8 | DType::I8) => Ok([quantized, scale, zero].map(Ref::from)),
        Some(it) => Err(no_match!("no kernel of integers takes {it}")),
        None => Err(no_match!("the type of `{}` is not known", m.value(quantized).name)),
    }
}

/// The int32 values of a bias, if they have the scale that the operator takes them to have.
fn sums(m: &Model, operands: &[Ref], bias: ValueId) -> Result<Ref, NoMatch> {
    let dq = dequantize(m, bias)?;
    let (Ref::Old(x), Ref::Old(w)) = (operands[1], operands[4]) else { unreachable!("values") };
    // Of a weight that is still to be solved the bias is made after it.
    if m.constant(w)?.quantized().is_some() {
        return Ok(m.operand(dq, 0)?.into());
    }
    let (expected, own) = (product_of_scales(m, x, w)?, m.small_f32(m.operand(dq, 1)?)?);
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs();
    if own.len() != expected.len() || !expected.iter().zip(&own).all(close) {
        return Err(NoMatch("its bias has another scale than the product".into()));
    }
    Ok(m.operand(dq, 0)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_alphabetical_order() {
        assert!(TABLE.is_sorted_by(|a, b| a.op < b.op));
    }
}
