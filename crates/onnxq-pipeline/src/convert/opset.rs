//! Raises the standard operator set, and says which operators had to change.

use super::Step;
use crate::Error;
use onnxq_ir::{Model, ctx::Ctx};
use onnxq_rewrite::opset::{self, Converted};

pub(super) fn run(model: &mut Model, target: i64, ctx: &Ctx) -> Result<Step, Error> {
    let it = opset::convert(model, target, ctx)?;
    let nodes: usize = it.changed.values().sum();
    let changed = nodes + it.inlined + usize::from(it.from != it.to);
    Ok(Step { changed, lines: lines(&it), ..Step::new("opset") })
}

fn lines(it: &Converted) -> Vec<String> {
    if it.to == 0 {
        return vec!["the model has no standard operators".to_owned()];
    }
    let mut lines = vec![format!("from {} to {}", it.from, it.to)];
    if it.inlined > 0 {
        lines.push(format!("{} calls of functions became nodes", it.inlined));
    }
    lines.extend(it.changed.iter().map(|(op, count)| format!("{op}: {count} rewritten")));
    lines.extend(it.expanded.iter().map(|(op, count)| {
        let known = "ONNX Runtime 1.31 has no kernel at this opset and runs it by parts, slower";
        format!("{op}: {count} nodes; {known}")
    }));
    lines
}
