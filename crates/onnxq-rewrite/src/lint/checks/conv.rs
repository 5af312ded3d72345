//! Convolutions whose quantized form is slower than float.

use super::{Found, ModelIndex, Severity, factor, integer::is_per_channel};
use onnxq_ir::{NodeId, ops::Traits, tensor::DType};

pub(super) fn conv_integer(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, "ConvInteger") {
        return None;
    }
    let dtype = l.dtype(node, 1).unwrap_or(DType::U8);
    let factor = match dtype {
        DType::I8 => factor(4.9, 28.0, "ConvInteger with int8 weights against float Conv"),
        _ => factor(1.2, 8.1, "ConvInteger with uint8 weights against float Conv"),
    };
    Some(Found {
        severity: Severity::Slow,
        what: format!("ConvInteger with {dtype} weights"),
        factor,
        hint: "leave convolutions in float (`convert --to float`), or quantize them statically",
        fix: None,
    })
}

pub(super) fn depthwise(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let fix = match l.is(node, "QLinearConv") {
        true => "signed-weights-conv",
        false => "signed-weights-dequantize",
    };
    is_slow_depthwise(l, node).then(|| Found {
        severity: Severity::Slow,
        what: "a depthwise convolution with uint8 weights per channel".into(),
        factor: factor(36.0, 71.0, "depthwise 3×3 and 5×5 of 96 to 384 channels against float"),
        hint: "store the weight as int8, its zero point lowered by 128",
        fix: Some((fix, node)),
    })
}

pub(super) fn is_slow_depthwise(l: &ModelIndex, node: NodeId) -> bool {
    let conv = match l.is(node, "QLinearConv") {
        true => Some((node, 3)),
        false => l.users(node).into_iter().find(|it| l.is(it.0, "Conv")).map(|it| (it.0, 0)),
    };
    let Some((conv, index)) = conv else { return false };
    if !l.is(node, "QLinearConv") && !l.is(node, "DequantizeLinear") {
        return false;
    }
    let Some(weight) = l.constant(node, index) else { return false };
    let is_depthwise = l.m.int_attr(conv, "group", 1) > 1 && weight.shape.get(1) == Some(&1);
    let is_static = conv == node || l.is_quantized_activation(conv, 0);
    weight.dtype == DType::U8 && is_depthwise && is_static && is_per_channel(l, node)
}

pub(super) fn relu_range(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.has(node, Traits::QUANTIZE) {
        return None;
    }
    let relu = l.producer(node, 0).filter(|it| l.is(*it, "Relu"))?;
    let conv = l.producer(relu, 0).filter(|it| l.is(*it, "Conv"))?;
    if !l.is_quantized_activation(conv, 0) {
        return None;
    }
    let zero = l.constant(node, 2)?;
    let lowest = match zero.dtype {
        DType::U8 => 0,
        DType::I8 => -128,
        _ => return None,
    };
    let zero_points = zero.to_i64().ok()?;
    zero_points.iter().any(|it| *it != lowest).then(|| Found {
        severity: Severity::Slow,
        what: "its range begins below zero although a Relu is before it".into(),
        factor: factor(1.4, 6.9, "symmetric activations behind Relu against float Conv"),
        hint: "calibrate with an asymmetric range (zero point 0 of uint8, -128 of int8) behind Relu",
        fix: None,
    })
}
