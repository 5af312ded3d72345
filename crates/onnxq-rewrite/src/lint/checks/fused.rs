//! Operators and patterns that a fusion made slow, or that a missing one leaves slow.

use super::{Found, ModelIndex, Severity, factor};
use crate as rewrite;
use onnxq_ir::{NodeId, ops::Layout};

pub(super) fn slow_fusion(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let model =
        |low, high| factor(low, high, "a whole encoder of 6 layers, fused before quantizing");
    let op = l.m.node(node).op.to_string();
    let (factor, hint, fix) = match &*op {
        "com.microsoft.SkipLayerNormalization" => (
            factor(5.3, 6.8, "128 rows of 384 to 2048"),
            "write Sum and LayerNormalization",
            Some(("unfuse-skip-layernorm", node)),
        ),
        "com.microsoft.BiasGelu" => (
            factor(1.7, 1.7, "128 rows of 1536, against Gelu"),
            "put the bias into the product before it, and keep Gelu",
            None,
        ),
        "com.microsoft.FastGelu" => (
            factor(1.2, 1.2, "128 rows of 1536, against Gelu"),
            "Gelu is faster, and another function: export the model with it if it was meant",
            None,
        ),
        _ if holds_weights(l, node) => {
            (model(1.05, 1.32), "quantize the model as it was exported; fuse nothing before", None)
        }
        _ => return None,
    };
    let severity = match l.is(node, "com.microsoft.FastGelu") {
        true => Severity::Advice,
        false => Severity::Slow,
    };
    let what = format!("{} is slow on a CPU", l.m.node(node).op.name);
    Some(Found { severity, what, factor, hint, fix })
}

/// Weights inside an operator that other kernels would be faster for. The fused attention is not
/// slower than its parts.
fn holds_weights(l: &ModelIndex, node: NodeId) -> bool {
    let layout = l.m.node(node).op.info().and_then(|it| it.layout);
    layout == Some(Layout::Fused) && !l.is(node, "com.microsoft.Attention")
}

pub(super) fn residual(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, "Add") {
        return None;
    }
    let Some(rewrite::Step::Rule(rule)) = rewrite::find("sum-before-layernorm") else {
        return None;
    };
    (rule.apply)(&l.m, node).ok()?;
    Some(Found {
        severity: Severity::Slow,
        what: "an Add that feeds a LayerNormalization".into(),
        factor: factor(5.3, 6.8, "SkipLayerNormalization against Sum and LayerNormalization"),
        hint: "write Sum instead of Add, which is not fused",
        fix: Some(("sum-before-layernorm", node)),
    })
}

pub(super) fn bias_outside(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, "com.microsoft.DynamicQuantizeMatMul") {
        return None;
    }
    let Some(rewrite::Step::Rule(rule)) = rewrite::find("dynamic-bias") else { return None };
    (rule.apply)(&l.m, node).ok()?;
    Some(Found {
        severity: Severity::Advice,
        what: "its bias is added by a node of its own".into(),
        factor: factor(1.01, 1.1, "an Add of the output's size for each product"),
        hint: "make the bias input 4",
        fix: Some(("dynamic-bias", node)),
    })
}

pub(super) fn quantized_twice(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, "DynamicQuantizeLinear") {
        return None;
    }
    let first = l.dynamic.get(&(l.m.node(node).graph, l.input(node, 0)?))?;
    (*first != node).then(|| Found {
        severity: Severity::Slow,
        what: "the same activation is quantized by another node too".into(),
        factor: factor(1.02, 1.03, "a whole encoder"),
        hint: "let all products share one DynamicQuantizeLinear",
        fix: Some(("dedupe-nodes", node)),
    })
}
