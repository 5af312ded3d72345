//! `--fuse`: what `quantize` does to a model before it quantizes, and nothing else.

use super::Step;
use crate::Error;
use onnxq_ir::{Model, ctx::Ctx};
use onnxq_rewrite as rewrite;
use onnxq_rewrite::STANDARD;

pub(super) fn run(model: &mut Model, ctx: &Ctx) -> Result<Step, Error> {
    let before = model.nodes().len();
    let opset = model.opset("");
    let mut step = Step::new("fuse");
    let mut lines: Vec<(String, usize)> = Vec::new();
    // A view of a tied table would be written out.
    let steps = [STANDARD, &["share-transposed"]].concat();
    for (name, count) in rewrite::run(model, &steps, ctx)? {
        // Types are knowledge, not changes.
        if count == 0 || name == "infer-types" {
            continue;
        }
        step.changed += count;
        match lines.iter_mut().find(|it| it.0 == name) {
            Some(it) => it.1 += count,
            None => lines.push((name, count)),
        }
    }
    step.lines.push(format!("{before} → {} nodes", model.nodes().len()));
    if model.opset("") != opset {
        step.lines.push(format!("opset {opset} → {}", model.opset("")));
    }
    step.lines.extend(lines.into_iter().map(|(name, count)| format!("{name}: {count}")));
    Ok(step)
}
