//! What we write has no slow or broken form of our own, and runs as it is declared.

use crate::common::{FIXTURES, at_least, fixture, onnx_recipes, quantize_file, quantized, runtime};
use onnxq_ir::{Model, ctx::Ctx, onnx, releases::Release, text};
use onnxq_pipeline::{self as pipeline, Execution};
use onnxq_quant::recipe;
use onnxq_rewrite as rewrite;
use onnxq_rewrite::lint;

/// Slow and broken forms of a quantized model that its prepared original has not.
fn own_findings(model: &Model, name: &str) -> Vec<String> {
    let recipe = recipe::load(name).unwrap();
    let mut prepared = model.clone();
    rewrite::run(&mut prepared, &recipe.prepare(rewrite::STANDARD), &Ctx::silent()).unwrap();
    let (before, after) = (lint::run(&prepared), lint::run(&quantized(model, &recipe)));
    let new = lint::new(&before, &after);
    new.iter().map(|it| format!("{name}: {} at {}", it.code, it.node)).collect()
}

#[test]
fn no_recipe_makes_a_slow_form() {
    for file in FIXTURES {
        let model = onnx::open(&fixture(file), &Default::default()).unwrap().model;
        for it in onnx_recipes() {
            assert_eq!(own_findings(&model, it), [""; 0], "{file}");
        }
    }
}

/// A float product beside one that somebody quantized slowly.
const MIXED: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[2,64] x) => (float[2,32] y, float[2,32] z) <float[64,32] w, uint8[64,32] v, float s = {0.1}> {
    y = MatMul (x, w)
    q, qs, qz = DynamicQuantizeLinear (x)
    i = MatMulInteger (q, v, qz)
    f = Cast <to = 1> (i)
    scale = Mul (qs, s)
    z = Mul (f, scale)
}"#;

#[test]
fn what_the_original_does_slowly_is_not_our_bug() {
    let model = text::parse(MIXED).unwrap();
    for it in onnx_recipes() {
        assert_eq!(own_findings(&model, it), [""; 0]);
    }
}

#[test]
fn the_runtime_executes_what_is_declared() {
    runtime().ensure().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for recipe in ["avx512_vnni", "arm64", "int4"] {
        let output = folder.path().join(format!("{recipe}.onnx"));
        let outcome = quantize_file(&fixture(FIXTURES[0]), recipe, &output);
        let execution = outcome.execution.unwrap();
        assert_eq!(execution.differing(), [] as [&lint::executed::Executed; 0], "{recipe}");
        let Execution::Checked { nodes, .. } = execution else { panic!("{execution:?}") };
        assert_eq!(nodes.len(), outcome.quantized_nodes);
    }
}

#[test]
fn a_weight_that_is_dequantized_in_each_run_is_seen() {
    runtime().ensure().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,128] x) => (float[2,64] y) <int8[128,64] w, float[1] s = {0.1}> {
            d = DequantizeLinear (w, s)
            y = MatMul (x, d)
        }"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::to_bytes(&text::parse(text).unwrap()).unwrap()).unwrap();
    let loaded = onnx::open(&path, &Default::default()).unwrap();
    let execution = pipeline::execution(&loaded.model, &loaded.files, &runtime());
    let rows = execution.differing();
    assert_eq!(rows.len(), 1, "{execution:?}");
    assert_eq!(rows[0].differs.as_deref(), Some("the weight is dequantized in each run"));
    let mut model = loaded.model;
    pipeline::fix(&mut model, false, &Ctx::silent()).unwrap();
    let execution = pipeline::execution(&model, &loaded.files, &runtime());
    // Older releases fuse no weight with a scale per channel.
    let left = usize::from(!at_least(Release(1, 25)));
    assert_eq!(execution.differing().len(), left, "{execution:?}");
}
