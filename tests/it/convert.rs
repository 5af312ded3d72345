//! What conversions compute: the models of `tests/filetests/convert` in the reference evaluator,
//! and a trained model in ONNX Runtime.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{fixture, inputs, quantize_file, relative_error, runtime, saturates};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    eval,
    onnx::{OpenOptions, SaveOptions},
    tensor::Tensor,
    text,
};
use onnxq_pipeline::{self as pipeline, Destination, convert::Convert};
use onnxq_quant::lower::{self, FORMS, Form};
use onnxq_rewrite as rewrite;
use onnxq_run::engine::SessionOptions;

fn converted(model: &Model, form: &Form) -> (Model, usize) {
    let mut m = model.clone();
    rewrite::run(&mut m, &["infer-types"], &Ctx::silent()).unwrap();
    let report = lower::convert(&mut m, form, &Ctx::silent()).unwrap();
    m.verify().unwrap();
    (m, report.changed())
}

fn worst(expected: &BTreeMap<String, Tensor>, actual: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(expected.keys().collect::<Vec<_>>(), actual.keys().collect::<Vec<_>>());
    let error = |(name, it): (&String, &Tensor)| {
        assert_eq!((it.dtype, &it.shape), (actual[name].dtype, &actual[name].shape), "{name}");
        relative_error(it, &actual[name])
    };
    expected.iter().map(error).fold(0.0, f64::max)
}

#[test]
fn every_form_computes_nearly_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/convert");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    let (mut cases, mut changes) = (0, 0);
    for path in paths {
        let file = fs::read_to_string(&path).unwrap();
        let of = |key| file.lines().find_map(|it| it.strip_prefix(key));
        let (Some(words), Some(tolerance)) = (of("# RUN:"), of("# TOLERANCE:")) else { continue };
        let tolerance: f64 = tolerance.trim().parse().unwrap();
        let model = text::parse(file.split_once("# ----").unwrap().0).unwrap();
        let asked = words.split_whitespace().last().unwrap();
        for form in FORMS {
            let (m, changed) = converted(&model, form);
            let inputs = inputs(&model, 2);
            let known = |it: &Model| eval::run(it, &inputs);
            // Operators of quantized values beyond the standard have no reference here.
            let (Ok(expected), Ok(actual)) = (known(&model), known(&m)) else { continue };
            let error = worst(&expected, &actual);
            let name = path.file_stem().unwrap().display();
            // Other forms may keep or drop the rounding of activations.
            let limit = if form.name == asked { tolerance } else { 0.06 };
            assert!(error <= limit, "{name} as {}: {error}", form.name);
            (cases, changes) = (cases + 1, changes + changed);
            for next in FORMS {
                let (again, _) = converted(&m, next);
                let Ok(actual) = known(&again) else { continue };
                let error = worst(&expected, &actual);
                let (one, other) = (form.name, next.name);
                assert!(error <= 0.06, "{name} as {one}, then as {other}: {error}");
            }
        }
    }
    assert!(cases > 80 && changes > 60, "{cases} cases, {changes} changes");
}

/// The outputs of a model in ONNX Runtime.
fn run(path: &Path, inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut session = runtime().open(path, &SessionOptions::default()).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs).unwrap().into_iter().collect()
}

fn token_ids() -> BTreeMap<String, Tensor> {
    let ids = Tensor::from_i64(&[1, 24], (0..24).map(|it| 5 + it * 37 % 900));
    let ones = Tensor::from_i64(&[1, 24], [1; 24]);
    let position = Tensor::from_i64(&[1, 24], 0..24);
    let named = [("input_ids", ids), ("attention_mask", ones), ("position_ids", position)];
    named.into_iter().map(|(name, it)| (name.to_owned(), it)).collect()
}

#[test]
fn recipes_convert_to_every_form_in_onnx_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let any_cpu = ["avx2", "int4", "int8_weights"];
    // Kernels that saturate lose what no other form of the model loses.
    let exact: &[&str] = if saturates() { &[] } else { &["avx512_vnni_row", "arm64"] };
    for &recipe in any_cpu.iter().chain(exact) {
        let own = folder.path().join(format!("{recipe}.onnx"));
        let save = SaveOptions::default();
        quantize_file(&fixture("model.onnx"), recipe, &own);
        let model = onnxq_ir::onnx::open(&own, &OpenOptions::default()).unwrap().model;
        let wanted = |it: &str| {
            model.graph(model.main).inputs.iter().any(|id| *model.value(*id).name == *it)
        };
        let inputs: BTreeMap<_, _> = token_ids().into_iter().filter(|it| wanted(&it.0)).collect();
        let expected = run(&own, &inputs);
        for form in FORMS {
            let path = folder.path().join(format!("{recipe}_{}.onnx", form.name));
            let job = Convert { model: own.clone(), to: Some(form), ..Convert::default() };
            let done = pipeline::convert::convert(
                &job,
                &Destination::new(&path, save, runtime()),
                &Ctx::silent(),
            )
            .unwrap();
            if done.output.is_none() {
                continue;
            }
            let error = worst(&expected, &run(&path, &inputs));
            // Kernels of 4 and 8 bits and dynamic ranges round activations, each in its own way.
            assert!(error < 0.06, "{recipe} as {}: {error}", form.name);
        }
    }
}
