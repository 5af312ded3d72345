//! ONNX Runtime and the reference evaluator agree on what this crate writes.

use std::{collections::BTreeMap, path::Path};

use crate::common::{
    FIXTURES, computes, fixture, inputs, quantize_file, quantized, relative_error, runtime,
    saturates,
};
use onnxq_ir::{Model, ctx::Ctx, eval, onnx, tensor::Tensor, text};
use onnxq_pipeline as pipeline;
use onnxq_quant::recipe;
use onnxq_run::{
    data::{DataOptions, Dataset},
    engine::SessionOptions,
};

/// The outputs of a model in ONNX Runtime.
fn run(path: &Path, inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut session = runtime().open(path, &SessionOptions::default()).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs).unwrap().into_iter().collect()
}

fn worst(expected: &BTreeMap<String, Tensor>, actual: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(expected.len(), actual.len());
    let error = |(name, it): (&String, &Tensor)| {
        assert_eq!(it.shape, actual[name].shape, "`{name}`");
        relative_error(it, &actual[name])
    };
    expected.iter().map(error).fold(0.0, f64::max)
}

/// Quantizes a model of text, writes it, and compares ONNX Runtime with the evaluator on it.
fn disagreement(model: &str, recipe: &str, sets: &[&str]) -> f64 {
    let mut recipe = recipe::load(recipe).unwrap();
    let is_dynamic = recipe.quantize[0].activation.is_some_and(|it| it.complete().is_some());
    let fitting = (is_dynamic && saturates()).then_some("quantize.0.weight.range=reduced");
    for set in sets.iter().copied().chain(fitting) {
        recipe = recipe::apply_set(&recipe, set).unwrap();
    }
    let model = quantized(&text::parse(model).unwrap(), &recipe);
    if !computes(&model) {
        return 0.0;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, onnx::to_bytes(&model).unwrap()).unwrap();
    let inputs = inputs(&model, 2);
    worst(&eval::run(&model, &inputs).unwrap(), &run(&path, &inputs))
}

/// Two MatMuls of one activation, one of them with a bias.
const SHARED: &str = r#"<ir_version: 8, opset_import: ["" : OPSET]>
main (float[3,64] x) => (float[3,32] y, float[3,16] z) <
   float[64,32] w, float[64,16] v, float[32] bias
> { t = MatMul (x, w) y = Add (t, bias) z = MatMul (x, v) }"#;

const EMBEDDING: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (int64[3] ids) => (float[3,160] y) <float[10,160] table> { y = Gather (table, ids) }"#;

const HALF: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float16[3,64] x, int64[3] ids) => (float16[3,32] y, float16[3,160] e) <
   float16[64,32] w, float16[10,160] table
> { y = MatMul (x, w) e = Gather (table, ids) }"#;

const BRANCH: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (bool cond, float[3,64] x, float[3,48] z) => (float[3,32] y) <float[64,32] w> {
   y = If (cond) <
      then_branch = yes () => (float[3,32] a) <float[48,32] v> { a = MatMul (z, v) },
      else_branch = no () => (float[3,32] b) { b = MatMul (x, w) }
   >
}"#;

fn shared(opset: i64) -> String {
    SHARED.replace("OPSET", &opset.to_string())
}

/// The integers are the same in both; only the order of the float operations differs.
const SAME_INTEGERS: f64 = 1e-5;
/// accuracy_level 4: the kernel quantizes activations to int8, which the evaluator does not.
const INT8_ACTIVATIONS: f64 = 2e-2;
/// A half has 11 bits.
const HALVES: f64 = 1e-3;

#[test]
fn dynamic_agrees() {
    for opset in [11, 13, 17, 18, 21] {
        let error = disagreement(&shared(opset), "avx512_vnni", &[]);
        assert!(error < SAME_INTEGERS, "opset {opset}: {error}");
    }
    assert!(disagreement(BRANCH, "avx2", &[]) < SAME_INTEGERS);
}

#[test]
fn dynamic_with_rows_agrees() {
    for opset in [11, 13, 17, 18, 21] {
        let error = disagreement(&shared(opset), "avx512_vnni_row", &[]);
        assert!(error < SAME_INTEGERS, "opset {opset}: {error}");
    }
}

#[test]
fn dynamic_fused_agrees() {
    for opset in [7, 17] {
        let error = disagreement(&shared(opset), "arm64", &[]);
        assert!(error < SAME_INTEGERS, "opset {opset}: {error}");
        let row = ["quantize.0.activation.granularity=row", "quantize.0.format=[dynamic_fused]"];
        let error = disagreement(&shared(opset), "arm64", &row);
        assert!(error < SAME_INTEGERS, "opset {opset} by row: {error}");
    }
}

#[test]
fn matmul_nbits_agrees() {
    for bits in [4, 8] {
        for symmetric in [true, false] {
            for block in [16, 32, 128] {
                let sets = [
                    format!("quantize.0.weight.dtype=uint{bits}"),
                    format!("quantize.0.weight.symmetric={symmetric}"),
                    format!("quantize.0.weight.granularity.block={block}"),
                ];
                let error = disagreement(&shared(17), "int4", &sets.each_ref().map(|it| &**it));
                assert!(error < INT8_ACTIVATIONS, "{sets:?}: {error}");
            }
        }
    }
}

#[test]
fn gather_block_quantized_agrees() {
    for bits in [4, 8] {
        for symmetric in [true, false] {
            for block in [16, 32, 128] {
                let sets = [
                    "quantize.1.min_elements=1".to_owned(),
                    format!("quantize.1.weight.dtype=uint{bits}"),
                    format!("quantize.1.weight.symmetric={symmetric}"),
                    format!("quantize.1.weight.granularity.block={block}"),
                ];
                let error = disagreement(EMBEDDING, "int4", &sets.each_ref().map(|it| &**it));
                assert!(error < SAME_INTEGERS, "{sets:?}: {error}");
            }
        }
    }
}

#[test]
fn half_floats_agree() {
    let small = "quantize.1.min_elements=1";
    for recipe in ["avx512_vnni", "avx512_vnni_row", "arm64"] {
        let error = disagreement(HALF, recipe, &[small]);
        assert!(error < HALVES, "{recipe}: {error}");
    }
    for recipe in ["int4", "int8_weights"] {
        let error = disagreement(HALF, recipe, &[small]);
        assert!(error < INT8_ACTIVATIONS, "{recipe}: {error}");
    }
}

/// A sequence of real tokens for a fixture, and an empty past if it takes one.
fn tokens(model: &Model) -> BTreeMap<String, Tensor> {
    let inputs = &model.graph(model.main).inputs;
    let tensor = |name: &str, ty: &onnxq_ir::tensor::TensorType| {
        let ids = (0..12).map(|it| (it * 37 + 5) % 1000);
        match name {
            "input_ids" => Tensor::from_i64(&[1, 12], ids),
            "attention_mask" => Tensor::from_i64(&[1, 12], [1; 12]),
            "position_ids" => Tensor::from_i64(&[1, 12], 0..12),
            // A past of no tokens.
            _ => {
                let dims = ty.shape.iter().flatten().enumerate();
                let size = |(at, it): (usize, &onnxq_ir::tensor::Dim)| {
                    it.fixed().unwrap_or(usize::from(at == 0))
                };
                let shape: Vec<usize> = dims.map(size).collect();
                Tensor::from_f32(&shape, std::iter::empty())
            }
        }
    };
    let name = |id: &_| model.value(*id).name.to_string();
    let ty = |id: &_| model.value(*id).ty.clone().unwrap();
    inputs.iter().map(|id| (name(id), tensor(&name(id), &ty(id)))).collect()
}

#[test]
fn float_models_agree() {
    for name in FIXTURES {
        let path = fixture(name);
        let model = onnx::open(&path, &Default::default()).unwrap().model;
        let inputs = tokens(&model);
        let error = worst(&eval::run(&model, &inputs).unwrap(), &run(&path, &inputs));
        assert!(error < 1e-4, "{name}: {error}");
    }
}

/// Quantizes a fixture by each recipe and compares it with the original in ONNX Runtime.
fn fixture_by_recipes(name: &str) {
    // Mean KL in nats: the original has a perplexity of 56, 4.0 nats.
    let limits = [
        ("arm64", 0.01),
        ("avx2", 0.01),
        ("avx512_vnni", 0.01),
        ("avx512_vnni_row", 0.002),
        ("int4", 0.05),
        ("int8_weights", 0.001),
    ];
    let folder = tempfile::tempdir().unwrap();
    let saturates = saturates();
    for (recipe, limit) in limits {
        let path = folder.path().join(format!("{recipe}.onnx"));
        let model = fixture(name);
        let outcome = quantize_file(&model, recipe, &path);
        assert!(outcome.quantized_weights >= 0.99, "{recipe}: {}", outcome.quantized_weights);
        let options = DataOptions { samples: Some(4), ..DataOptions::default() };
        let data = Dataset::of_path(fixture("eval_ids.npy"), options);
        let validate = pipeline::Validate::new(&model, &path, data);
        let job = pipeline::Validate { runtime: runtime(), ..validate };
        let report = pipeline::validate(&job, None, &Ctx::silent()).unwrap();
        let logits = &report.figures.outputs["logits"];
        assert_eq!((logits.nonfinite.reference, logits.nonfinite.candidate), (0, 0), "{recipe}");
        let kl = logits.kl.as_ref().unwrap().mean.unwrap();
        // What saturates is for other CPUs.
        let fits = ["avx2", "int4", "int8_weights"].contains(&recipe) || !saturates;
        assert!(kl < limit || !fits, "{name} by {recipe}: KL {kl}");
    }
}

#[test]
fn the_traced_export_survives_every_recipe() {
    fixture_by_recipes("model.onnx");
}

#[test]
fn the_dynamo_export_survives_every_recipe() {
    fixture_by_recipes("model_dynamo.onnx");
}

#[test]
fn the_export_with_past_survives_every_recipe() {
    fixture_by_recipes("model_with_past.onnx");
}

/// In a process whose environment neither forbids reports nor hints at a test run.
#[test]
fn onnx_runtime_reports_nothing() {
    let located = runtime().ensure().unwrap();
    let home = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .arg("doctor")
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_CACHE_HOME", home.path())
        .env("ORT_DYLIB_PATH", &located.path)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    // It would keep its reports and an identifier of the machine here.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
