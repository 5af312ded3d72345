//! `DequantizeLinear` before float operators: standard from opset 13 on, blocks from 21 on.

use super::{
    Between, Convolutions, Form, PLAIN,
    emit::{Emit, by_channel, needs},
    rows,
};
use crate::raise::{Kind, Site, Weights};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, no_match,
    tensor::{DType, Packing, Part, QSource},
};

pub(super) const QDQ: Form = Form {
    name: "qdq",
    help: "QuantizeLinear and DequantizeLinear around float operators",
    has: |site| site.form.contains("DequantizeLinear"),
    lower,
    convolutions: Convolutions::Raise,
    between: Between::Float,
    ..PLAIN
};

pub(super) fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    let Kind::Product { x, bias } = &site.kind else { return rows::lower(m, site, weights) };
    check(m, site)?;
    let mut to = Emit::new(m, site);
    let x_float = to.dequantized_x(x);
    let w = weight(&mut to);
    let y = to.main("MatMul", &[x_float, w], Attrs::default());
    let y = to.biased(y, x, *bias)?;
    Ok(to.finish(y))
}

fn check(m: &Model, site: &Site) -> Result<(), NoMatch> {
    let weight = &site.weight;
    weight.source.integer_zeros()?;
    let shape = weight.source.shape();
    match (stored_by_channel(m, site), shape.bits) {
        (true, _) => needs(m, 13, "DequantizeLinear with a scale per channel")?,
        (false, 2) => needs(m, 25, "DequantizeLinear of 2-bit values")?,
        (false, _) => needs(m, 21, "DequantizeLinear of blocks")?,
    }
    match weight.dtype {
        DType::F32 => Ok(()),
        DType::F16 => needs(m, 19, "DequantizeLinear to float16"),
        it => Err(no_match!("DequantizeLinear to {it} is in no kernel")),
    }
}

/// Quantized values of less than 8 bits are stored so in blocks only, which opset 21 has; a block
/// may hold all of a channel.
fn stored_by_channel(m: &Model, site: &Site) -> bool {
    let shape = site.weight.source.shape();
    let in_block = shape.bits == 4 && shape.block.is_power_of_two() && m.opset("") >= 21;
    by_channel(&site.weight) && !in_block
}

/// `DequantizeLinear` of the weight, `[k, n]`. A scale per tensor becomes one per channel, which
/// ONNX Runtime has kernels for.
fn weight(to: &mut Emit) -> Ref {
    let source = to.site.weight.source.clone();
    let (packing, attrs) = match stored_by_channel(to.m, to.site) {
        true => (Packing::PerChannel, Attrs::default().with("axis", 1i64)),
        false => {
            let block = source.shape().block;
            let attrs = Attrs::default().with("axis", 0i64).with("block_size", block);
            (Packing::Blocked, attrs)
        }
    };
    let quantized = to.part(&source, Part::Quantized, packing, "codes");
    let scales = to.scales(&source, packing);
    let zero_points = to.part(&source, Part::ZeroPoints, packing, "zeros");
    let name = format!("{}_dq", to.site.weight.stem);
    to.patch.step(&name, "DequantizeLinear", [quantized, scales, zero_points], attrs)
}
