//! Raises the operator set of a model whose attention `fuse-attention` could make one node.
//!
//! The operators of the fusions are standard from opset 23 on, and ONNX Runtime runs them since
//! its version 1.23, the oldest that onnxq accepts. A model without attention keeps its version,
//! and so does one with a node that cannot be converted.

use crate::{
    ctx::Ctx,
    ir::{Model, NodeId},
    rewrite::{Pass, PassError, nodes_in_main, opset, rules::Site, trace},
};

pub const RAISE_OPSET: Pass = Pass {
    name: "raise-opset",
    help: "raise the operator set to 23 if there is attention that it can express",
    limited: true,
    run,
};

/// The first with `Attention`, `RotaryEmbedding` and `RMSNormalization`.
const ATTENTION: i64 = 23;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let before = model.opset("");
    if before == 0 || before >= ATTENTION || ctx.max_rewrites == 0 {
        return Ok(0);
    }
    let is_attention =
        |it: &NodeId| model.node(*it).op.is("Softmax") && Site::of(model, *it).is_ok();
    if !nodes_in_main(model).iter().any(is_attention) {
        return Ok(0);
    }
    match opset::convert(model, ATTENTION, ctx) {
        Ok(_) => Ok(1),
        Err(reason) => {
            trace(ctx, RAISE_OPSET.name, &format!("opset {before}"), &reason.to_string());
            Ok(0)
        }
    }
}
