//! Operators of integers: `QLinearMatMul` where the result is quantized, else `MatMulInteger`.

use super::{
    Between, Form, PLAIN,
    emit::{Emit, by_channel, needs, only, to},
    rows,
};
use crate::raise::{Bias, GATHER_ROWS, Input, Kind, Site, Weights, quantize};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Packing, Part, QSource, Tensor, ZeroPoints},
};

pub(super) const QOPERATOR: Form = Form {
    name: "qoperator",
    help: "Operators of integers: QLinearMatMul, MatMulInteger and their like",
    has: |site| {
        let own =
            [GATHER_ROWS, "Gather + DequantizeLinear", "MatMulInteger", "QGemm", "QLinearMatMul"];
        own.contains(&site.form)
    },
    lower,
    between: Between::Quantized,
    ..PLAIN
};

fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    if !by_channel(&site.weight) {
        let block = site.weight.source.shape().block;
        return Err(no_match!("no operator of integers has scales in blocks ({block})"));
    }
    let Kind::Product { x, bias } = &site.kind else { return rows::lower(m, site, weights) };
    product(m, site, x, *bias)
}

/// A product of integers; see [`sums`] for what it needs.
pub(super) fn product(
    m: &Model,
    site: &Site,
    x: &Input,
    bias: Option<Bias>,
) -> Result<Patch, NoMatch> {
    if site.weight.dtype != DType::F32 {
        return Err(no_match!(
            "products of integers are scaled in float, not {}",
            site.weight.dtype
        ));
    }
    site.weight.source.integer_zeros()?;
    if let (Input::Quantized { dynamic: false, .. }, None) = (x, bias)
        && let Ok(end) = requantized(m, site)
    {
        return requantizing(m, site, x, end);
    }
    sums(m, site, x, bias)
}

/// A `QuantizeLinear` that takes all of the result.
struct End {
    /// Before which the new node goes.
    last: NodeId,
    output: ValueId,
    scale: ValueId,
    zero: ValueId,
}

fn requantized(m: &Model, site: &Site) -> Result<End, NoMatch> {
    if let Some((scale, zero)) = site.requantized {
        return Ok(End { last: site.last, output: site.output, scale, zero });
    }
    let last = m.only_use(site.output)?;
    let output = m.node(last).output();
    quantize(m, output)?;
    let (scale, zero) = (m.operand(last, 1)?, m.operand(last, 2)?);
    only(m, scale)?;
    Ok(End { last, output, scale, zero })
}

fn requantizing(m: &Model, site: &Site, x: &Input, end: End) -> Result<Patch, NoMatch> {
    let site = &Site { last: end.last, output: end.output, requantized: None, ..site.clone() };
    let mut to = Emit::new(m, site);
    let [quantized, scale, zero] = operand(&mut to, x)?;
    let source = site.weight.source.clone();
    let w = to.part(&source, Part::Quantized, Packing::PerChannel, "codes");
    let w_scales = to.scales(&source, Packing::PerChannel);
    let w_zeros = to.part(&source, Part::ZeroPoints, Packing::PerChannel, "zeros");
    let inputs = [quantized, scale, zero, w, w_scales, w_zeros, end.scale.into(), end.zero.into()];
    let y = to.main("QLinearMatMul", &inputs, Attrs::default());
    Ok(to.finish(y))
}

/// The quantized values of the activation with a zero that is stated.
fn operand(to: &mut Emit, x: &Input) -> Result<[Ref; 3], NoMatch> {
    let [quantized, scale, zero] = to.quantized_x(x)?;
    if zero != Ref::None {
        return Ok([quantized, scale, zero]);
    }
    let Ref::Old(value) = quantized else { return Ok([quantized, scale, zero]) };
    let dtype = to.m.dtype(value).unwrap_or(DType::U8);
    if dtype.bits() != 8 {
        return Err(no_match!("its activation is {dtype}"));
    }
    let zero = to.patch.constant("zero", Tensor::new(dtype, vec![], vec![0u8]));
    Ok([quantized, scale, zero])
}

/// `Mul(Cast(MatMulInteger(x, w)), Mul(x_scale, w_scales))`.
fn sums(m: &Model, site: &Site, x: &Input, bias: Option<Bias>) -> Result<Patch, NoMatch> {
    needs(m, 11, "MatMulInteger")?;
    let mut emit = Emit::new(m, site);
    let [quantized, scale, zero] = operand(&mut emit, x)?;
    if let Input::Quantized { quantized, .. } = *x
        && m.dtype(quantized).is_some_and(|it| it.bits() != 8)
    {
        return Err(no_match!(
            "no kernel multiplies quantized values of {}",
            m.dtype(quantized).unwrap_or(DType::U16)
        ));
    }
    let source = site.weight.source.clone();
    let w = emit.part(&source, Part::Quantized, Packing::PerChannel, "codes");
    let mut inputs = vec![quantized, w, zero];
    if source.shape().zero_points == ZeroPoints::Asymmetric {
        inputs.push(emit.part(&source, Part::ZeroPoints, Packing::PerChannel, "zeros"));
    }
    let name = m.node(site.last).name.to_string();
    let sum_name = format!("{}_int32", emit.stem);
    let sum = emit.patch.named(&name, &sum_name, "MatMulInteger", inputs, Attrs::default());
    let sum = emit.step("sum", "Cast", &[sum], to(DType::F32));
    let w_scales = emit.scales(&source, Packing::PerChannel);
    let scale = emit.step("scale", "Mul", &[scale, w_scales], Attrs::default());
    let y = emit.step("", "Mul", &[sum, scale], Attrs::default());
    let y = emit.biased(y, x, bias)?;
    Ok(emit.finish(y))
}
