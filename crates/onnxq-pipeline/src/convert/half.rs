//! `--to float16` and `--to bfloat16`: narrow floats wherever nothing speaks against them.

use super::{Left, Step};
use crate::Error;
use onnxq_ir::{Model, ctx::Ctx, human::grouped, tensor::DType};
use onnxq_rewrite::half::{HalfReport, to_half};

/// The types that `--to` takes, and its help for each.
pub const HALVES: &[(DType, &str)] = &[
    (
        DType::BF16,
        "Weights and activations in bfloat16, but for nodes that would overflow or do not take it",
    ),
    (
        DType::F16,
        "Weights and activations in float16, but for nodes that would overflow or do not take it",
    ),
];

/// Makes what is float32 narrow; nodes that stay in float32 are named.
pub(super) fn run(m: &mut Model, dtype: DType, keep_io: bool, ctx: &Ctx) -> Result<Step, Error> {
    let report = to_half(m, dtype, keep_io, ctx)?;
    let mut step = Step::new(dtype.name());
    step.changed = report.converted;
    step.lines = lines(&report);
    let left = |it: onnxq_rewrite::half::KeptNode| Left {
        node: it.node,
        op: it.op,
        reason: format!("stays in float32: {}", it.reason),
    };
    step.left = report.kept.into_iter().map(left).collect();
    Ok(step)
}

fn lines(report: &HalfReport) -> Vec<String> {
    let count = |it: usize| grouped(it as u64);
    let mut lines = vec![format!(
        "{} nodes, {} weights, {} casts added",
        count(report.converted),
        count(report.weights),
        count(report.casts)
    )];
    lines.extend(report.clamped.iter().map(|it| {
        let name = onnxq_ir::untrusted::Untrusted(&it.value);
        format!("`{name}` holds {}, which stands for infinity: it becomes {}", it.from, it.to)
    }));
    lines
}
