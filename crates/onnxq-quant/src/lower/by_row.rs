//! A product whose activation gets a range for each row, to see what that would change.

use super::emit::Emit;
use crate::raise::{self, Input, Kind, Weights};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Ref, ValueId, no_match,
    tensor::{DType, Tensor},
};

/// Computes in float what the product at `node` would with a range for each row; its weight stays as
/// it is. Only of an activation with one range that each run finds anew.
pub fn by_row(m: &mut Model, node: NodeId, weights: &mut Weights) -> Result<(), NoMatch> {
    let unknown = || no_match!("`{}` is no quantized product", m.node_label(node));
    let site = raise::site(m, node, weights).ok_or_else(unknown)??;
    let Kind::Product { x: input, bias } = &site.kind else { return Err(unknown()) };
    let x = of_one_range(m, input)?;
    if site.weight.dtype != DType::F32 {
        return Err(NoMatch("it does not compute in float32".into()));
    }
    let mut to = Emit::new(m, &site);
    let x = rounded(&mut to, x);
    let name = site.weight.stem.clone();
    let w = to.patch.constant(&name, weights.float(&site.weight, true));
    let y = to.main("MatMul", &[x, w], Attrs::default());
    let y = to.biased(y, input, *bias)?;
    to.finish(y).apply(m);
    Ok(())
}

/// What is quantized with one range for all rows, unless its rows have the same range already.
fn of_one_range(m: &Model, input: &Input) -> Result<ValueId, NoMatch> {
    let (Input::Fused(x) | Input::Quantized { x: Some(x), dynamic: true, .. }) = *input else {
        return Err(NoMatch("its range is not found in each run".into()));
    };
    let divided = m.producer(x, "Mul").is_ok_and(|mul| {
        (0..2).any(|at| m.operand(mul, at).is_ok_and(|it| m.producer(it, "Reciprocal").is_ok()))
    });
    if divided { Err(NoMatch("it has a range for each row".into())) } else { Ok(x) }
}

/// Each row divided by its largest magnitude, to 8 bits and back.
fn rounded(to: &mut Emit, x: ValueId) -> Ref {
    let plain = Attrs::default;
    let abs = to.step("abs", "Abs", &[x.into()], plain());
    let keep = plain().with("keepdims", 1i64);
    let max = if to.m.opset("") >= 18 {
        let axes = to.patch.constant("last_axis", Tensor::from_i64(&[1], [-1]));
        to.step("row_max", "ReduceMax", &[abs, axes], keep)
    } else {
        to.step("row_max", "ReduceMax", &[abs], keep.with("axes", vec![-1i64]))
    };
    let tiny = to.patch.constant("tiny", Tensor::scalar(1e-9));
    let rows = to.step("rows", "Max", &[max, tiny], plain());
    let divided = to.step("normalized", "Div", &[x.into(), rows], plain());
    let names = ["u8", "row_scale", "row_zero"].map(|it| format!("{}_{it}", to.stem));
    let names = [&*names[0], &*names[1], &*names[2]];
    let parts = to.patch.step_with_outputs(names, "DynamicQuantizeLinear", [divided], plain());
    let near = to.step("near", "DequantizeLinear", &parts, plain());
    to.step("by_row", "Mul", &[near, rows], plain())
}
