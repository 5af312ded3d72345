//! Raises the operator set to one whose `QuantizeLinear` takes a scale per channel.
//!
//! Opset 13 would do; 17 has `LayerNormalization` too, and every runtime of today knows it. A model
//! with a node that cannot be converted keeps its version.

use crate::{Pass, PassError, opset, trace};
use onnxq_ir::{Model, ctx::Ctx};

pub(super) const RAISE_OPSET_STATIC: Pass = Pass {
    name: "raise-opset-static",
    help: "raise the operator set to 17, for scales per channel in QuantizeLinear",
    limited: true,
    run,
};

const TARGET: i64 = 17;

/// The first that would do.
const PER_CHANNEL: i64 = 13;

fn run(model: &mut Model, ctx: &Ctx) -> Result<usize, PassError> {
    let before = model.opset("");
    if before == 0 || before >= TARGET || ctx.max_rewrites == 0 {
        return Ok(0);
    }
    match opset::convert(model, TARGET, ctx) {
        Ok(_) => Ok(1),
        Err(reason) => {
            trace(ctx, RAISE_OPSET_STATIC.name, &format!("opset {before}"), &reason.to_string());
            if before < PER_CHANNEL {
                let without = "no static int8 with scales per channel";
                opset::tell_kept(ctx, before, without, &reason);
            }
            Ok(0)
        }
    }
}
