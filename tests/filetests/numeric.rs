//! Compares the numbers that a model computes before and after a rewrite.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use onnxq_ir::{Model, ctx::Ctx, eval, tensor::Tensor, text};
use onnxq_rewrite as rewrite;

use super::random::inputs;

/// What a symbolic or unknown dimension stands for.
const SIZE: usize = 2;

/// The number of a line `# TOLERANCE: 1e-4`.
pub(crate) fn tolerance(input: &str) -> Option<f32> {
    input.lines().find_map(|it| it.strip_prefix("# TOLERANCE:"))?.trim().parse().ok()
}

/// The named passes must not change what the model computes.
pub(crate) fn numeric_check(
    input_text: &str,
    names: &[&str],
    tolerance: f32,
) -> Result<(), Failed> {
    let before = text::parse(input_text)?;
    let mut after = before.clone();
    rewrite::run(&mut after, names, &Ctx::silent())?;
    equal(&before, &after, tolerance)
}

/// Neither must another operator set, as far as the evaluator knows the operators.
pub(crate) fn opset_check(input_text: &str, target: i64, tolerance: f32) -> Result<(), Failed> {
    if input_text.lines().any(|it| it.starts_with("# NO-EVAL:")) {
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
