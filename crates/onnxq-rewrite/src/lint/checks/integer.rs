//! Products of integers whose operands have the wrong sign or width.

use super::{super::model_index::Grain, Factor, Found, ModelIndex, Severity, factor};
use crate::rules::{RULES, is_float_product};
use onnxq_ir::{
    NodeId,
    ops::{Layout, Set, Traits},
    tensor::DType,
};

const MATMUL: Option<Factor> =
    factor(1.3, 3.2, "u8u8 against u8s8 MatMul, 384×1536 to 2048×8192, 1 to 512 rows");
const CONV: Option<Factor> = factor(2.3, 4.4, "u8u8 against u8s8 Conv of 64 to 256 channels");

/// Products of integers, apart from one that is slow whatever its weight.
const PRODUCTS: Set = Set::of(Traits::INTEGER).minus(&["ConvInteger"]);

pub(super) fn u8_weights(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let (index, is_conv, fix) = match product(l, node) {
        Some((index, layout)) => (index, layout == Layout::Conv, signed_weights(l, node)),
        None => (0, u8_behind_dequantize(l, node)?, Some("signed-weights-dequantize")),
    };
    let weight = l.constant(node, index)?;
    if weight.dtype != DType::U8
        || weight.shape.len() < 2
        || super::conv::is_slow_depthwise(l, node)
    {
        return None;
    }
    Some(Found {
        severity: Severity::Slow,
        what: "the weight is uint8".into(),
        factor: if is_conv { CONV } else { MATMUL },
        hint: "store it as int8, its zero point lowered by 128 (the sums stay the same, except on \
               x86 without VNNI, where kernels for int8 weights may saturate)",
        fix: fix.map(|it| (it, node)),
    })
}

/// The only weight of a product of integers, and how it lies in memory.
fn product(l: &ModelIndex, node: NodeId) -> Option<(usize, Layout)> {
    let info = l.m.node(node).op.info().filter(|_| l.is_in(node, PRODUCTS))?;
    match info.weight_inputs()[..] {
        [only] => Some((only, info.layout?)),
        _ => None,
    }
}

/// The rewrite that stores the weight of such a product as int8.
fn signed_weights(l: &ModelIndex, node: NodeId) -> Option<&'static str> {
    let rules = RULES.iter().filter(|it| it.name.starts_with("signed-weights"));
    rules.filter(|it| l.is(node, it.root)).map(|it| it.name).next()
}

/// Whether a weight of a static product is uint8, and of a convolution.
fn u8_behind_dequantize(l: &ModelIndex, node: NodeId) -> Option<bool> {
    if !l.has(node, Traits::DEQUANTIZE) {
        return None;
    }
    let users = l.users(node);
    let (user, _) = users.iter().find(|(user, index)| {
        is_float_product(&l.m.node(*user).op) && *index == 1 && l.is_quantized_activation(*user, 0)
    })?;
    Some(l.is(*user, "Conv"))
}

pub(super) fn s8_activations(l: &ModelIndex, node: NodeId) -> Option<Found> {
    product(l, node).filter(|it| it.1 != Layout::Conv)?;
    (l.dtype(node, 0) == Some(DType::I8)).then(|| Found {
        severity: Severity::Slow,
        what: "activations are int8 (x86)".into(),
        factor: factor(8.0, 15.0, "s8s8 against u8s8, 768×768, 1 and 64 rows, x86"),
        hint: "quantize activations to uint8, or write QuantizeLinear and DequantizeLinear pairs, \
               which ONNX Runtime turns into uint8 itself; ARM is not concerned",
        fix: None,
    })
}

pub(super) fn sixteen_bit(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.has(node, Traits::QUANTIZE) {
        return None;
    }
    let stated = l.m.int_attr(node, "output_dtype", 0);
    let dtype = l.dtype(node, 2).or_else(|| DType::from_number(i32::try_from(stated).ok()?))?;
    matches!(dtype, DType::U16 | DType::I16).then(|| Found {
        severity: Severity::Slow,
        what: format!("activations are quantized to {dtype}"),
        factor: factor(1.5, 9.6, "QDQ with uint16 activations against float MatMul"),
        hint: "quantize activations to 8 bits, or leave them in float; CPUs have no kernels for 16",
        fix: None,
    })
}

/// Whether a weight has a scale for each output channel.
pub(super) fn is_per_channel(l: &ModelIndex, node: NodeId) -> bool {
    if l.has(node, Traits::DEQUANTIZE) {
        return l.dequantized(node).is_some_and(|it| matches!(it.grain, Grain::Channel { .. }));
    }
    l.constant(node, 4).is_some_and(|it| it.numel() > 1)
}
