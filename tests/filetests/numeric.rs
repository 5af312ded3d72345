//! Compares the numbers that a model computes before and after a rewrite.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use onnxq_ir::{
    Attrs, Def, Model, Op,
    ctx::Ctx,
    eval,
    tensor::{DType, Tensor},
    text,
};
use onnxq_rewrite as rewrite;

use super::{
    random::inputs,
    shuffle::{shuffle, structure},
};

/// What a symbolic or unknown dimension stands for.
const SIZE: usize = 2;

/// The number of a line `# TOLERANCE: 1e-4`.
pub(crate) fn tolerance(input: &str) -> Option<f32> {
    input.lines().find_map(|it| it.strip_prefix("# TOLERANCE:"))?.trim().parse().ok()
}

/// The named passes must not change what the model computes, as far as the evaluator knows its
/// operators.
pub(crate) fn numeric_check(
    input_text: &str,
    names: &[&str],
    tolerance: f32,
) -> Result<(), Failed> {
    if is_unknown(input_text) {
        return Ok(());
    }
    let before = text::parse(input_text)?;
    let mut after = before.clone();
    rewrite::run(&mut after, names, &Ctx::silent())?;
    equal(&before, &after, tolerance)
}

/// Whatever valid order the nodes are in, the named passes leave the same graph.
pub(crate) fn shuffled_check(input_text: &str, names: &[&str]) -> Result<(), Failed> {
    const ORDERS: u64 = 20;
    let mut model = text::parse(input_text)?;
    compute_inputs(&mut model);
    let rewritten = |mut model: Model| -> Result<String, Failed> {
        rewrite::run(&mut model, names, &Ctx::silent())?;
        model.verify()?;
        Ok(structure(&model))
    };
    let expected = rewritten(model.clone())?;
    for seed in 0..ORDERS {
        let mut other = model.clone();
        shuffle(&mut other, seed);
        let actual = rewritten(other)?;
        if actual != expected {
            return Err(
                format!("in order {seed} of the nodes: {actual} instead of {expected}").into()
            );
        }
    }
    Ok(())
}

/// Computes each input of the main graph, so that it has a place among the nodes too.
fn compute_inputs(model: &mut Model) {
    let main = model.main;
    let Some(first) = model.nodes_of(main).next() else { return };
    for input in model.graph(main).inputs.clone() {
        let Some(ty) = model.value(input).ty.clone() else { continue };
        let op = if ty.dtype == DType::Bool { "Not" } else { "Neg" };
        let value = model.add_value("computed", Some(ty), Def::Input(main, None));
        model.replace_all_uses(input, value);
        let (op, inputs) = ((Op::new(op), "".into()), vec![Some(input)]);
        model.add_node(main, Some(first), op, inputs, Attrs::default(), vec![value]);
    }
}

fn is_unknown(input_text: &str) -> bool {
    input_text.lines().any(|it| it.starts_with("# NO-EVAL:"))
}

/// Neither must another operator set, as far as the evaluator knows the operators.
pub(crate) fn opset_check(input_text: &str, target: i64, tolerance: f32) -> Result<(), Failed> {
    if is_unknown(input_text) {
        return Ok(());
    }
    let before = text::parse(input_text)?;
    let mut after = before.clone();
    rewrite::opset::convert(&mut after, target, &Ctx::silent())?;
    equal(&before, &after, tolerance)
}

fn equal(before: &Model, after: &Model, tolerance: f32) -> Result<(), Failed> {
    let inputs = inputs(before, SIZE);
    let expected = eval::run(before, &inputs).map_err(|it| it.to_string())?;
    let actual = eval::run(after, &inputs).map_err(|it| it.to_string())?;
    let names = |it: &BTreeMap<String, Tensor>| it.keys().cloned().collect::<Vec<_>>();
    if names(&expected) != names(&actual) {
        return Err(format!("outputs {:?} became {:?}", names(&expected), names(&actual)).into());
    }
    for (name, expected) in &expected {
        compare(name, expected, &actual[name], tolerance)?;
    }
    Ok(())
}

fn compare(name: &str, expected: &Tensor, actual: &Tensor, tolerance: f32) -> Result<(), Failed> {
    if (expected.dtype, &expected.shape) != (actual.dtype, &actual.shape) {
        return Err(format!("the output `{name}` was {expected:?} and is {actual:?}").into());
    }
    if !expected.dtype.is_float() {
        let same = expected.bytes()? == actual.bytes()?;
        return if same { Ok(()) } else { Err(format!("the output `{name}` changed").into()) };
    }
    for (i, (a, b)) in expected.to_f32()?.iter().zip(actual.to_f32()?).enumerate() {
        let close = (a - b).abs() <= tolerance * a.abs().max(1.0);
        if !(close || *a == b || a.is_nan() && b.is_nan()) {
            return Err(format!("the output `{name}` was {a} and is {b} at {i}").into());
        }
    }
    Ok(())
}
