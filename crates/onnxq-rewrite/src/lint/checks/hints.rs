//! What may be meant so, and often is not.

use super::{Found, ModelIndex, Severity, factor};
use onnxq_ir::{
    NodeId,
    ops::{Layout, Set, Traits},
    tensor::{DType, Tensor},
};

/// Smaller weights cost little.
const HEAVY: usize = 1 << 16;

pub(super) fn float_weight(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is_quantized {
        return None;
    }
    let info = l.m.node(node).op.info()?;
    let (Some(Layout::MatMul | Layout::Gemm | Layout::Conv | Layout::Table), [index]) =
        (info.layout, info.weights)
    else {
        return None;
    };
    let weight = l.constant(node, *index)?;
    let is_float = matches!(weight.dtype, DType::F32 | DType::F16 | DType::BF16);
    (is_float && weight.shape.len() >= 2 && weight.numel() >= HEAVY).then(|| Found {
        severity: Severity::Advice,
        what: format!("its weight is {} in a quantized model", weight.dtype),
        factor: None,
        hint: "quantize it too, unless accuracy or the kernel forbids it",
        fix: None,
    })
}

/// `ReduceMean(x²)` that begins an RMSNorm.
pub(super) fn loose_rmsnorm(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is_quantized || !l.is(node, "ReduceMean") {
        return None;
    }
    let square = l.producer(node, 0)?;
    let x = l.input(square, 0)?;
    let is_two = |it: &Tensor| it.to_f32().is_ok_and(|it| it == [2.0]);
    let is_square = l.is(square, "Mul") && l.input(square, 1) == Some(x)
        || l.is(square, "Pow") && l.constant(square, 1).is_some_and(is_two);
    // `(x - mean)²` belongs to a LayerNormalization.
    let is_centred = l.producer(square, 0).is_some_and(|it| l.is(it, "Sub"));
    (is_square && !is_centred).then(|| Found {
        severity: Severity::Advice,
        what: "an RMSNorm written as several nodes".into(),
        factor: None,
        hint: "quantize the float model with `onnxq quantize`, which fuses before it quantizes",
        fix: None,
    })
}

/// What scales and masks the scores of attention.
const SCORES: Set =
    Set::of(Traits::ARITHMETIC.union(Traits::CAST)).plus(&["Where"]).minus(&["Sub"]);

/// `MatMul → … → Softmax → MatMul` in a decoder with a cache.
pub(super) fn loose_attention(l: &ModelIndex, node: NodeId) -> Option<Found> {
    const STEPS: usize = 4;
    let has_past = l.m.graph(l.m.main).inputs.iter().any(|it| l.m.value(*it).name.contains("past"));
    if !l.is_quantized || !has_past || !l.is(node, "Softmax") {
        return None;
    }
    l.users(node).iter().find(|(user, index)| l.is(*user, "MatMul") && *index == 0)?;
    let mut at = node;
    for _ in 0..STEPS {
        at = l.producer(at, 0)?;
        if l.is(at, "MatMul") {
            return Some(Found {
                severity: Severity::Advice,
                what: "attention with a cache written as several nodes".into(),
                factor: factor(1.25, 1.59, "one token, against GroupQueryAttention"),
                hint: "build GroupQueryAttention in the float model, then quantize it",
                fix: None,
            });
        }
        if !l.is_in(at, SCORES) {
            return None;
        }
    }
    None
}
