//! Models of old operator sets compute the same in ONNX Runtime after `convert --opset`, for
//! every target on the way to the newest that it runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{computed as run, computes, inputs, relative_error};
use onnxq_ir::{ctx::Ctx, tensor::Tensor, text};
use onnxq_rewrite::opset;

/// Sums in another order.
const TOLERANCE: f64 = 1e-6;

/// The filetests of conversions that must succeed, unless they say that nothing runs them.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/opset");
    let mut files: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|it| it.unwrap().path()).collect();
    files.retain(|it| {
        let text = fs::read_to_string(it).unwrap();
        text.contains("# RUN:") && !text.contains("# NO-RUNTIME:")
    });
    files.sort();
    files
}

/// The target of the file itself, if nothing later can be reached (`# LAST`).
fn last_target(input: &str) -> Option<i64> {
    input.lines().find_map(|it| it.strip_prefix("# LAST:"))?.trim().parse().ok()
}

fn compare(what: &str, expected: &[(String, Tensor)], actual: &[(String, Tensor)]) {
    assert_eq!(expected.len(), actual.len(), "{what}");
    for ((name, expected), (_, actual)) in expected.iter().zip(actual) {
        assert_eq!(
            (expected.dtype, &expected.shape),
            (actual.dtype, &actual.shape),
            "{what}: {name}"
        );
        if expected.dtype.is_float() {
            let error = relative_error(expected, actual);
            assert!(error < TOLERANCE, "{what}: {name} is off by {error}");
        } else {
            assert_eq!(expected.bytes().unwrap(), actual.bytes().unwrap(), "{what}: {name}");
        }
    }
}

#[test]
fn every_target_computes_the_same() {
    for file in files() {
        let input = fs::read_to_string(&file).unwrap();
        let input = input.split("# ----\n").next().unwrap();
        let model = text::parse(input).unwrap();
        if !computes(&model) {
            continue;
        }
        let inputs = inputs(&model, 4);
        let name = file.file_stem().unwrap().display();
        let expected = run(&model, &inputs).unwrap_or_else(|err| panic!("{name}: {err}"));
        let newest_body = model.functions.iter().flat_map(|it| &it.opsets).map(|it| it.1).max();
        let first = model.opset("").max(newest_body.unwrap_or(0));
        for target in first..=last_target(input).unwrap_or(opset::NEWEST_THAT_RUNS) {
            let mut converted = model.clone();
            opset::convert(&mut converted, target, &Ctx::silent()).unwrap();
            converted.verify().unwrap();
            assert_eq!(converted.opset(""), target);
            if !computes(&converted) {
                continue;
            }
            let what = format!("{name} to {target}");
            let actual = run(&converted, &inputs).unwrap_or_else(|err| panic!("{what}: {err}"));
            compare(&what, &expected, &actual);
        }
    }
}

#[test]
fn steps_on_the_way_do_not_matter() {
    for file in files() {
        let input = fs::read_to_string(&file).unwrap();
        let input = input.split("# ----\n").next().unwrap();
        let last = last_target(input).unwrap_or(opset::NEWEST);
        let mut at_once = text::parse(input).unwrap();
        let mut slowly = at_once.clone();
        if input.contains("# OWN-WAY:") {
            continue;
        }
        opset::convert(&mut at_once, last, &Ctx::silent()).unwrap();
        let first = slowly.opset("").max(if slowly.functions.is_empty() { 0 } else { 18 });
        for target in first..=last {
            opset::convert(&mut slowly, target, &Ctx::silent()).unwrap();
        }
        assert_eq!(text::print(&at_once), text::print(&slowly), "{}", file.display());
    }
}
