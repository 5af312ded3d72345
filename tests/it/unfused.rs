//! What ONNX Runtime fused when it saved a model computes the same in operators of the standard: in ONNX
//! Runtime, because our evaluator does not know its fused operators.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{computed, fixture, inputs, relative_error, runtime};
use onnxq_ir::{Model, ctx::Ctx, onnx, tensor::Tensor, text};
use onnxq_rewrite as rewrite;
use onnxq_run::engine::SessionOptions;

fn run(model: &Model, inputs: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    computed(model, inputs).unwrap().into_iter().map(|it| it.1).collect()
}

#[test]
fn fused_operators_compute_the_same_unfused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/rules");
    let mut ran = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().display().to_string();
        let input = fs::read_to_string(&path).unwrap();
        // One has an activation function that nothing knows.
        if !name.starts_with("unfuse_") || name.ends_with("_unknown") {
            continue;
        }
        let model = text::parse(input.split("# ----\n").next().unwrap()).unwrap();
        let mut unfused = model.clone();
        rewrite::run(&mut unfused, rewrite::STANDARD, &Ctx::silent()).unwrap();
        let inputs = inputs(&model, 2);
        let (expected, actual) = (run(&model, &inputs), run(&unfused, &inputs));
        assert_eq!(expected.len(), actual.len(), "{name}");
        for (expected, actual) in expected.iter().zip(&actual) {
            let error = relative_error(expected, actual);
            assert!(error < 1e-5, "{name}: {error}");
        }
        ran += 1;
    }
    assert!(ran >= 9, "{ran} files");
}

/// ONNX Runtime saves a model as it optimizes it; what we make of that is what we make of the
/// exporter's.
#[test]
fn a_saved_model_is_prepared_like_the_export() {
    let folder = tempfile::tempdir().unwrap();
    let export = fixture("model.onnx");
    let saved = folder.path().join("saved.onnx");
    let options = SessionOptions { optimized_model: Some(saved.clone()), ..Default::default() };
    drop(runtime().open(&export, &options).unwrap());
    let nodes = |path: &Path| {
        let options = onnx::OpenOptions {
            allow_unknown_opset: true,
            drop_unknown: true,
            ..Default::default()
        };
        let mut model = onnx::open(path, &options).unwrap().model;
        rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()).unwrap();
        let mut ops: Vec<String> =
            model.nodes().into_iter().map(|it| model.node(it).op.to_string()).collect();
        // ONNX Runtime's name for the same operator.
        for op in ops.iter_mut().filter(|op| *op == "SimplifiedLayerNormalization") {
            *op = "RMSNormalization".to_owned();
        }
        ops.sort();
        ops
    };
    let (saved, export) = (nodes(&saved), nodes(&export));
    assert!(saved == export, "{saved:?}\n{export:?}");
}
