//! Raises the operator set of a model in which a fusion could make an operator of a later one.
//!
//! `Attention` and its kin are standard from opset 23 on, and ONNX Runtime runs them since its
//! version 1.23, the oldest that onnxq accepts; `HardSwish` is from opset 14. A model without
//! either keeps its version, and so does one with a node that cannot be converted.

use crate::{
    Pass, PassError, nodes_in_main, opset,
    rules::{Site, hard_swish},
    trace,
};
use onnxq_ir::{Model, NodeId, ctx::Ctx};

pub(super) const RAISE_OPSET: Pass = Pass {
    name: "raise-opset",
    help: "raise the operator set to 23 for attention that it can express, to 14 for HardSwish",
    limited: true,
    run,
};

/// The first with `Attention`, `RotaryEmbedding` and `RMSNormalization`.
const ATTENTION: i64 = 23;

/// The first with `HardSwish`.
const HARD_SWISH: i64 = 14;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let before = model.opset("");
    if before == 0 || ctx.max_rewrites == 0 {
        return Ok(0);
    }
    let Some(target) = target(model).filter(|it| *it > before) else { return Ok(0) };
    match opset::convert(model, target, ctx) {
        Ok(_) => Ok(1),
        Err(reason) => {
            trace(ctx, RAISE_OPSET.name, &format!("opset {before}"), &reason.to_string());
            let what = if target == ATTENTION { "attention" } else { "HardSwish" };
            opset::tell_kept(ctx, before, &format!("{what} is not fused"), &reason);
            Ok(0)
        }
    }
}

/// The operator set that the fusions need.
fn target(model: &Model) -> Option<i64> {
    let nodes = nodes_in_main(model);
    let is_attention =
        |it: &NodeId| model.node(*it).op.is("Softmax") && Site::of(model, *it).is_ok();
    if nodes.iter().any(is_attention) {
        return Some(ATTENTION);
    }
    nodes.iter().any(|it| hard_swish(model, *it).is_ok()).then_some(HARD_SWISH)
}
