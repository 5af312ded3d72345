//! What the tests of whole models share.

pub(crate) mod arrays;
pub(crate) mod models;
pub(crate) mod outside;
pub(crate) mod random;
pub(crate) mod reports;
pub(crate) mod shuffle;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, Files, Loaded},
    releases::{Needed, Release},
    tensor::Tensor,
};
use onnxq_pipeline::{self as pipeline, Inputs, Job, Opened};
#[cfg(all(feature = "cli", feature = "runtime"))]
use onnxq_pipeline::{Outcome, Quantized};
use onnxq_quant::recipe::Recipe;
use onnxq_rewrite as rewrite;
#[cfg(all(feature = "cli", feature = "runtime"))]
use onnxq_run::engine::{Runtime, SessionOptions, Verdict};

pub(crate) use self::random::inputs;

/// A trained language model of three exporters.
pub(crate) const FIXTURES: [&str; 3] = ["model.onnx", "model_dynamo.onnx", "model_with_past.onnx"];

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/slm-fixture").join(name)
}

/// The folder of tiny checkpoints.
pub(crate) fn checkpoints() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/checkpoints")
}

/// A fixture as it is prepared for quantization.
pub(crate) struct Setup {
    pub model: Model,
    pub files: Files,
}

pub(crate) fn setup(name: &str) -> Setup {
    let loaded = onnx::open(&fixture(name), &Default::default()).unwrap();
    let mut model = loaded.model;
    rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()).unwrap();
    Setup { model, files: loaded.files }
}

/// ONNX Runtime as the program finds it, installed by whichever test is first.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn runtime() -> Runtime<'static> {
    Runtime::from(onnxq_cli::environment::runtime())
}

/// Whether the ONNX Runtime under test is that release or a newer one.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn at_least(release: Release) -> bool {
    Release::of(&runtime().ensure().unwrap().version) >= Some(release)
}

/// Whether the ONNX Runtime under test computes a model: `.ci/run` takes older ones, too. What one
/// does not compute, it must refuse by name.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn computes(model: &Model) -> bool {
    runtime().ensure().unwrap().suffices(&Needed::by(model))
}

/// What ONNX Runtime makes of these inputs, output by output, or why it does not.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn computed(
    model: &Model,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, onnx::to_bytes(model).unwrap()).unwrap();
    let session = runtime().open(&path, &SessionOptions::default());
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    let results = session.and_then(|mut it| it.run(&inputs)).map_err(|it| it.to_string())?;
    Ok(results.into_iter().collect())
}

/// Whether the int8 kernels of this CPU are right for weights of 7 bits only.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn saturates() -> bool {
    let verdict = runtime().examine(false).verdict;
    matches!(verdict, Verdict::Saturates | Verdict::SaturatesDespiteVnni)
}

/// The recipe whose numbers this CPU computes rightly. What a recipe for VNNI loses elsewhere by
/// saturation says nothing of the recipe.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn for_this_cpu(recipe: &str) -> &str {
    match recipe {
        "avx512_vnni" if saturates() => "avx2",
        "avx512_vnni_static" if saturates() => "avx2_static",
        _ => recipe,
    }
}

/// A recipe's result in a file, made without data.
#[cfg(all(feature = "cli", feature = "runtime"))]
pub(crate) fn quantize_file(model: &Path, recipe: &str, output: &Path) -> Outcome {
    let recipe = onnxq_quant::recipe::load(recipe).unwrap();
    let inputs = Inputs { runtime: runtime(), ..Inputs::default() };
    let ctx = Ctx::silent();
    let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
    let model = Opened::read(model, &Default::default(), &ctx).unwrap();
    match pipeline::quantize(model, &job).unwrap() {
        Quantized::Lowered(it) => it.write(output, &Default::default(), &job).unwrap(),
        Quantized::Nothing(outcome) => panic!("nothing in {}", outcome.model.display()),
    }
}

/// The model as a recipe makes it.
pub(crate) fn quantized(model: &Model, recipe: &Recipe) -> Model {
    let (inputs, ctx) = (Inputs::default(), Ctx::silent());
    let job = Job { recipe, inputs: &inputs, ctx: &ctx };
    let files = Files::in_memory(Path::new("model.onnx"), Default::default());
    let loaded = Loaded { model: model.clone(), warnings: Vec::new(), files };
    let opened = Opened::of(loaded, &Default::default(), &ctx);
    pipeline::outline(opened, &job).unwrap().model
}

/// `|expected - actual| / |expected|`, as vectors.
pub(crate) fn relative_error(expected: &Tensor, actual: &Tensor) -> f64 {
    let (expected, actual) = (expected.to_f32().unwrap(), actual.to_f32().unwrap());
    assert_eq!(expected.len(), actual.len());
    let norm = |it: &mut dyn Iterator<Item = f64>| it.map(|it| it * it).sum::<f64>().sqrt();
    let pairs = expected.iter().zip(&actual);
    let error = norm(&mut pairs.map(|(a, b)| f64::from(a - b)));
    error / norm(&mut expected.iter().map(|it| f64::from(*it))).max(f64::MIN_POSITIVE)
}

/// The shipped recipes whose results are ONNX models, of any float model: one keeps integers, which those
/// do not have.
pub(crate) fn onnx_recipes() -> impl Iterator<Item = &'static str> {
    let of_models =
        |it: &&str| *it != "as_stored" && !onnxq_quant::recipe::load(it).unwrap().is_gguf();
    onnxq_quant::recipe::SHIPPED.iter().map(|it| it.0).filter(of_models)
}
