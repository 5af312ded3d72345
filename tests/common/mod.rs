//! What the tests of whole models share.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod arrays;
pub mod outside;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, Files},
    tensor::{DType, Tensor, TensorType, from_f32},
};
use onnxq_pipeline::Job;
use onnxq_quant::{
    format, insert,
    recipe::{Recipe, resolve::resolve},
    sources::Sources,
};
use onnxq_rewrite as rewrite;

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

/// A tensor for each input: floats in -1..1, integers in 0..3, any booleans; `size` stands for
/// what is not fixed. An attention mask is ones, with padding at the end of the first row.
pub fn inputs(model: &Model, size: usize) -> BTreeMap<String, Tensor> {
    let mut random = Random(1);
    let mut map = BTreeMap::new();
    for &id in &model.graph(model.main).inputs {
        let value = model.value(id);
        let Some(TensorType { dtype, shape: Some(shape) }) = &value.ty else {
            panic!("the input `{}` has no shape", value.name);
        };
        let shape = shape.iter().map(|it| it.fixed().unwrap_or(size)).collect();
        let tensor = match &*value.name {
            "attention_mask" => padding(shape),
            _ => random.tensor(*dtype, shape),
        };
        map.insert(value.name.to_string(), tensor);
    }
    map
}

fn padding(shape: Vec<usize>) -> Tensor {
    let (count, row) = (shape.iter().product::<usize>(), shape[1]);
    Tensor::from_i64(&shape, (0..count).map(|it| i64::from(it + 1 != row)))
}

/// A fixed sequence (splitmix64): the same inputs at each run, on each machine.
struct Random(u64);

impl Random {
    fn tensor(&mut self, dtype: DType, shape: Vec<usize>) -> Tensor {
        let count = shape.iter().product();
        if dtype.is_float() {
            let values: Vec<f32> = (0..count).map(|_| self.float()).collect();
            return Tensor::new(dtype, shape, from_f32(dtype, &values).unwrap());
        }
        let limit = if dtype == DType::Bool { 2 } else { 3 };
        let numbers = (0..count).map(|_| (self.next() % limit).to_le_bytes());
        let bytes: Vec<u8> = numbers.flat_map(|it| it.into_iter().take(dtype.bits() / 8)).collect();
        Tensor::new(dtype, shape, bytes)
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }
}
