//! Products of integers whose operands have the wrong sign or width.

use super::{
    super::look::{DEQUANTIZE, Grain, QUANTIZE},
    Factor, Found, Look, Severity, factor,
};
use onnxq_ir::{NodeId, tensor::DType};

const MATMUL: Option<Factor> =
    factor(1.3, 3.2, "u8u8 against u8s8 MatMul, 384×1536 to 2048×8192, 1 to 512 rows");
const CONV: Option<Factor> = factor(2.3, 4.4, "u8u8 against u8s8 Conv of 64 to 256 channels");

/// Operator, its weight and the rewrite that mends it.
const WEIGHTS: &[(&str, usize, Option<Factor>, Option<&str>)] = &[
    ("MatMulInteger", 1, MATMUL, Some("signed-weights")),
    ("QLinearMatMul", 3, MATMUL, Some("signed-weights-qlinear")),
    ("QLinearConv", 3, CONV, Some("signed-weights-conv")),
    ("com.microsoft.DynamicQuantizeMatMul", 1, MATMUL, Some("signed-weights-fused")),
    ("com.microsoft.MatMulIntegerToFloat", 1, MATMUL, Some("signed-weights-float")),
    ("com.microsoft.QGemm", 3, MATMUL, None),
];

pub fn u8_weights(l: &Look, node: NodeId) -> Option<Found> {
    let (index, factor, fix) = match WEIGHTS.iter().find(|it| l.is(node, it.0)) {
        Some((_, index, factor, fix)) => (*index, *factor, *fix),
        None => {
            let conv = u8_behind_dequantize(l, node)?;
            (0, if conv { CONV } else { MATMUL }, Some("signed-weights-dequantize"))
        }
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
        factor,
        mend: "store it as int8, its zero point lowered by 128 (the sums stay the same, except on \
               x86 without VNNI, where kernels for int8 weights may saturate)",
        fix: fix.map(|it| (it, node)),
    })
}

/// Whether a weight of a static product is uint8, and of a convolution.
fn u8_behind_dequantize(l: &Look, node: NodeId) -> Option<bool> {
    l.one_of(node, DEQUANTIZE)?;
    let users = l.users(node);
    let (user, _) = users.iter().find(|(user, index)| {
        let product = l.one_of(*user, &["MatMul", "Gemm", "Conv"]).is_some();
        product && *index == 1 && l.is_quantized_activation(*user, 0)
    })?;
    Some(l.is(*user, "Conv"))
}

pub fn s8_activations(l: &Look, node: NodeId) -> Option<Found> {
    let ops = [
        "MatMulInteger",
        "QLinearMatMul",
        "com.microsoft.MatMulIntegerToFloat",
        "com.microsoft.QGemm",
    ];
    l.one_of(node, &ops)?;
    (l.dtype(node, 0) == Some(DType::I8)).then(|| Found {
        severity: Severity::Slow,
        what: "activations are int8 (x86)".into(),
        factor: factor(8.0, 15.0, "s8s8 against u8s8, 768×768, 1 and 64 rows, x86"),
        mend: "quantize activations to uint8, or write QuantizeLinear and DequantizeLinear pairs, \
               which ONNX Runtime turns into uint8 itself; ARM is not concerned",
        fix: None,
    })
}

pub fn sixteen_bit(l: &Look, node: NodeId) -> Option<Found> {
    l.one_of(node, QUANTIZE)?;
    let stated = l.m.int_attr(node, "output_dtype", 0);
    let dtype = l.dtype(node, 2).or_else(|| DType::from_number(i32::try_from(stated).ok()?))?;
    matches!(dtype, DType::U16 | DType::I16).then(|| Found {
        severity: Severity::Slow,
        what: format!("activations are quantized to {dtype}"),
        factor: factor(1.5, 9.6, "QDQ with uint16 activations against float MatMul"),
        mend: "quantize activations to 8 bits, or leave them in float; CPUs have no kernels for 16",
        fix: None,
    })
}

/// Whether a weight has a scale for each output channel.
pub fn is_per_channel(l: &Look, node: NodeId) -> bool {
    if l.one_of(node, DEQUANTIZE).is_some() {
        return l.dequantized(node).is_some_and(|it| matches!(it.grain, Grain::Channel { .. }));
    }
    l.constant(node, 4).is_some_and(|it| it.numel() > 1)
}
