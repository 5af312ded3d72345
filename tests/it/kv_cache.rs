//! A decoder that goes on where it was says what it says of the whole sequence: in the reference
//! evaluator, and in ONNX Runtime; with a cache of eight bits nearly so.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{at_least, fixture, inputs, relative_error, runtime};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::Code,
    eval,
    onnx::{self, OpenOptions, SaveOptions},
    releases::Release,
    tensor::{DType, Tensor},
    text,
};
use onnxq_pipeline::{
    Destination,
    convert::{self, Calibration, Convert},
};
use onnxq_rewrite::cache::{self, Cached, Scales};
use onnxq_run::engine::{Session, SessionOptions};

type Values = BTreeMap<String, Tensor>;

fn filetest(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/convert");
    let file = fs::read_to_string(folder.join(name)).unwrap();
    text::parse(file.split_once("# ----").unwrap().0).unwrap()
}

fn cached(model: &Model) -> (Model, Cached) {
    let mut m = model.clone();
    cache::add_kv_cache(&mut m, &Ctx::silent()).unwrap();
    m.verify().unwrap();
    let cached = cache::caches(&m).unwrap();
    (m, cached)
}

/// Elements `from..to` along axis 1 of integers.
fn columns(it: &Tensor, from: usize, to: usize) -> Tensor {
    let [rows, length] = it.shape[..] else { panic!("{it:?}") };
    let values = it.to_i64().unwrap();
    let part = (0..rows).flat_map(|row| values[row * length + from..row * length + to].to_vec());
    Tensor::from_i64(&[rows, to - from], part.collect::<Vec<i64>>())
}

/// Rows `from..to` of logits; those of padding, which may be anything, are zeros.
fn rows(it: &Tensor, given: &Values, (from, to): (usize, usize), start: usize) -> Tensor {
    let [batch, length, width] = it.shape[..] else { panic!("{it:?}") };
    let values = it.to_f32().unwrap();
    let mask = given.get("attention_mask").map(|it| columns(it, from, to).to_i64().unwrap());
    let mut part = Vec::new();
    for (at, (row, token)) in
        (0..batch).flat_map(|row| (start..start + to - from).map(move |it| (row, it))).enumerate()
    {
        let seen = mask.as_ref().is_none_or(|it| it[at] != 0);
        let line = &values[(row * length + token) * width..][..width];
        part.extend(line.iter().map(|it| if seen { *it } else { 0.0 }));
    }
    Tensor::from_f32(&[batch, to - from, width], part)
}

/// The largest relative error of the logits that runs of `cuts` tokens give, against the whole.
fn worst(
    whole: &Tensor,
    given: &Values,
    cached: &Cached,
    empty: &Tensor,
    cuts: &[usize],
    mut run: impl FnMut(&Values) -> Values,
) -> f64 {
    let names = cached.layers.iter().flat_map(|it| &it.past);
    let mut past: Values = names.map(|it| (it.to_string(), empty.clone())).collect();
    let (mut at, mut worst) = (0, 0f64);
    for count in cuts {
        let end = at + count;
        let mut inputs = past.clone();
        for (name, it) in given {
            let is_mask = cached.padding.as_deref() == Some(name);
            inputs.insert(name.clone(), columns(it, if is_mask { 0 } else { at }, end));
        }
        let outputs = run(&inputs);
        worst = worst.max(relative_error(
            &rows(whole, given, (at, end), at),
            &rows(&outputs["logits"], given, (at, end), 0),
        ));
        for it in &cached.layers {
            for (past_name, present) in it.past.iter().zip(&it.present) {
                past.insert(past_name.to_string(), outputs[&**present].clone());
            }
        }
        at = end;
    }
    worst
}

#[test]
fn the_evaluator_goes_on() {
    for (name, empty) in [("add_kv_cache", [2, 2, 0, 8]), ("add_kv_cache_learned", [2, 1, 0, 8])] {
        let model = filetest(&format!("{name}.onnxtxt"));
        let (m, cached) = cached(&model);
        let given = inputs(&model, 7);
        let given: Values = given.iter().map(|(name, it)| (name.clone(), two_rows(it))).collect();
        let whole = &eval::run(&model, &given).unwrap()["logits"];
        let empty = Tensor::from_f32(&empty, []);
        for cuts in [&[7][..], &[4, 3], &[1, 1, 5], &[6, 1]] {
            let error =
                worst(whole, &given, &cached, &empty, cuts, |it| eval::run(&m, it).unwrap());
            assert!(error < 1e-5, "{name} in {cuts:?}: {error}");
        }
    }
}

fn two_rows(it: &Tensor) -> Tensor {
    let values = it.to_i64().unwrap();
    Tensor::from_i64(&[2, it.shape[1]], values[..2 * it.shape[1]].to_vec())
}

/// Writes a fixture with a cache, of eight bits if data for it is given.
fn converted(
    name: &str,
    folder: &Path,
    data: Option<PathBuf>,
) -> Result<(PathBuf, convert::Converted), onnxq_pipeline::Error> {
    let path = folder.join(format!("{}_{name}", data.is_some()));
    let kv_cache = data.map(|data| Calibration {
        data,
        tokenizer: None,
        preprocess: None,
        runtime: onnxq_cli::environment::runtime(),
        threads: 1,
    });
    let add_kv_cache = name != "model_with_past.onnx";
    let job = Convert { model: fixture(name), add_kv_cache, kv_cache, ..Convert::default() };
    let place = Destination::new(&path, SaveOptions::default(), runtime());
    let done = convert::convert(&job, &place, &Ctx::silent());
    done.map(|it| (path.clone(), it))
}

/// What ONNX Runtime needs for a cache of integers.
const INT8_CACHE: Release = Release(1, 27);

fn prepared(path: &Path) -> Model {
    let mut m = onnx::open(path, &OpenOptions::default()).unwrap().model;
    cache::prepare(&mut m, &Ctx::silent()).unwrap();
    m
}

fn open(path: &Path) -> Box<dyn Session> {
    runtime().open(path, &SessionOptions::default()).unwrap()
}

fn run(session: &mut dyn Session, inputs: &Values) -> Values {
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs).unwrap().into_iter().collect()
}

/// 16 tokens in each row, the first `2 · row` of which are padding.
fn sample(batch: usize) -> Values {
    let count = batch * 16;
    let ids = (0..count as i64).map(|it| (it * 37 + 5) % 1000);
    let mask = (0..count).map(|it| i64::from(it % 16 >= 2 * (it / 16)));
    BTreeMap::from([
        ("input_ids".into(), Tensor::from_i64(&[batch, 16], ids)),
        ("attention_mask".into(), Tensor::from_i64(&[batch, 16], mask)),
    ])
}

const ONE_BY_ONE: [usize; 9] = [8, 1, 1, 1, 1, 1, 1, 1, 1];

#[test]
fn exports_without_a_cache_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "model_dynamo.onnx"] {
        let (path, _) = converted(name, folder.path(), None).unwrap();
        let m = prepared(&path);
        let cached = cache::caches(&m).unwrap();
        let (mut before, mut after) = (open(&fixture(name)), open(&path));
        for batch in [1, 3] {
            let given = sample(batch);
            let whole = &run(before.as_mut(), &given)["logits"];
            let empty = Tensor::from_f32(&[batch, 2, 0, 32], []);
            for cuts in [&ONE_BY_ONE[..], &[8, 8]] {
                let go = |it: &Values| run(after.as_mut(), it);
                let error = worst(whole, &given, &cached, &empty, cuts, go);
                assert!(error < 1e-5, "{name}, batch {batch}, {cuts:?}: {error}");
            }
        }
    }
}

#[test]
fn a_cache_of_eight_bits_is_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "model_with_past.onnx"] {
        let data = fixture("calibration_input_ids.npy");
        let result = converted(name, folder.path(), Some(data));
        if !at_least(INT8_CACHE) {
            assert_eq!(result.err().unwrap().code(), Code::E802);
            continue;
        }
        let (path, done) = result.unwrap();
        let step = done.steps.last().unwrap();
        let logits = &step.comparison.as_ref().unwrap().outputs["logits"];
        let (kl, top1) = (logits.kl.unwrap().mean.unwrap(), logits.top1.unwrap());
        assert!(kl > 0.0 && kl < 1e-3 && top1 > 0.97, "{name}: KL {kl}, top-1 {top1}");
        let m = onnx::open(&path, &OpenOptions::default()).unwrap().model;
        assert!(m.nodes().iter().all(|it| !m.node(*it).op.is("Attention")));
        let session = open(&path);
        let pasts = session.inputs().iter().filter(|it| it.name.starts_with("past"));
        let types: Vec<DType> = pasts.map(|it| it.ty.dtype).collect();
        assert_eq!(types, [DType::I8; 8], "{name}");
    }
}

/// Steps of ones: the quantized values are the rounded keys and values.
#[test]
fn scales_and_codes_are_what_the_model_says() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = converted("model.onnx", folder.path(), None).unwrap();
    let mut m = prepared(&path);
    let cached = cache::caches(&m).unwrap();
    let given = sample(1);
    let mut first = given.clone();
    for it in cached.layers.iter().flat_map(|it| &it.past) {
        first.insert(it.to_string(), Tensor::from_f32(&[1, 2, 0, 32], []));
    }
    let float = &run(open(&path).as_mut(), &first)["present.0.key"].to_f32().unwrap();
    let step = Scales { key: 0.25, value: 0.125 };
    cache::to_int8(&mut m, &[step; 4], &Ctx::silent()).unwrap();
    m.verify().unwrap();
    let scale = m.constants().find(|it| *m.value(it.0).name == *"past_key_values.0.key.scale");
    assert_eq!(scale.unwrap().1.to_f32().unwrap(), [0.25]);
    if !at_least(INT8_CACHE) {
        return;
    }
    let int8 = folder.path().join("int8.onnx");
    fs::write(&int8, onnx::to_bytes(&m).unwrap()).unwrap();
    for it in cached.layers.iter().flat_map(|it| &it.past) {
        first.insert(it.to_string(), Tensor::new(DType::I8, vec![1, 2, 0, 32], Vec::new()));
    }
    let quantized = run(open(&int8).as_mut(), &first)["present.0.key"].to_i64().unwrap();
    for (x, code) in float.iter().zip(quantized) {
        let exact = (f64::from(*x) / 0.25).clamp(-128.0, 127.0);
        assert!((code as f64 - exact).abs() < 0.51, "{x} as {code}");
    }
}
