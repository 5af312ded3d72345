//! What the tests of whole models share.

pub mod arrays;
pub mod models;
pub mod outside;
pub mod random;
pub mod reports;

use std::path::{Path, PathBuf};

use onnxq::pipeline::Job;
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, Files},
    tensor::Tensor,
};
use onnxq_quant::{
    format, insert,
    recipe::{Recipe, resolve::resolve},
    sources::Sources,
};
use onnxq_rewrite as rewrite;

pub use self::random::inputs;

/// A trained language model of three exporters.
pub const FIXTURES: [&str; 3] = ["model.onnx", "model_dynamo.onnx", "model_with_past.onnx"];

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/slm-fixture").join(name)
}

/// A fixture as it is prepared for quantization.
pub struct Setup {
    pub model: Model,
    pub files: Files,
}

pub fn setup(name: &str) -> Setup {
    let loaded = onnx::open(&fixture(name), &Default::default()).unwrap();
    let mut model = loaded.model;
    rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()).unwrap();
    Setup { model, files: loaded.files }
}

pub fn job(model: &Path, recipe: &str) -> Job {
    let recipe = onnxq_quant::recipe::load(recipe).unwrap();
    let (open, skip_nonfinite) = (Default::default(), false);
    Job { model: model.into(), recipe, open, skip_nonfinite, goal: None }
}

/// The model as a recipe makes it.
pub fn quantized(model: &Model, recipe: &Recipe) -> Model {
    let mut m = model.clone();
    rewrite::run(&mut m, &recipe.prepare(rewrite::STANDARD), &Ctx::silent()).unwrap();
    let plan = resolve(recipe, &m, &|_, _| Ok(())).unwrap();
    insert::quantize(&mut m, &plan, &mut Sources::default());
    let formats: Vec<_> = plan.sites.iter().map(|it| it.format).collect();
    format::lower(&mut m, &formats).unwrap();
    rewrite::run(&mut m, &["dedupe-constants", "dedupe-nodes", "remove-dead"], &Ctx::silent())
        .unwrap();
    m.verify().unwrap();
    m
}

/// `|expected - actual| / |expected|`, as vectors.
pub fn relative_error(expected: &Tensor, actual: &Tensor) -> f64 {
    let (expected, actual) = (expected.to_f32().unwrap(), actual.to_f32().unwrap());
    assert_eq!(expected.len(), actual.len());
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|it| it * it).sum::<f64>().sqrt();
    let pairs = expected.iter().zip(&actual);
    let error = norm(&mut pairs.map(|(a, b)| f64::from(a - b)));
    error / norm(&mut expected.iter().map(|it| f64::from(*it))).max(f64::MIN_POSITIVE)
}
