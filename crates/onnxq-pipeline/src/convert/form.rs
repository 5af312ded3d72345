//! `--to`: a quantized model in another quantized form, or in none.

use super::{Left, Step};
use crate::Error;
use onnxq_ir::{Model, ctx::Ctx};
use onnxq_quant::lower::{self, Form};
use onnxq_rewrite as rewrite;

/// Brings all that is quantized to `form`; what it cannot hold is named.
pub(super) fn run(m: &mut Model, form: &Form, ctx: &Ctx) -> Result<Step, Error> {
    // Ranks of indices and types of activations decide what can be done.
    rewrite::run(m, &["infer-types"], ctx)?;
    let report = lower::convert(m, form, ctx)?;
    let mut step = Step::new(form.name);
    step.changed = report.changed();
    step.lines = report.converted.iter().map(|(what, count)| format!("{count} × {what}")).collect();
    if report.unquantized > 0 {
        let count = report.unquantized;
        step.lines.push(format!("{count} products no longer quantize their activations"));
    }
    step.left = report
        .left
        .into_iter()
        .map(|(node, reason)| Left {
            node: m.node_label(node),
            op: m.node(node).op.to_string(),
            reason: reason.to_string(),
        })
        .collect();
    rewrite::run(m, &["infer-types"], ctx)?;
    Ok(step)
}
