//! What a model says of how it was made, and what a report says of what went in.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::common::{fixture, runtime};
use onnxq_ir::{
    ctx::Ctx,
    diag::Code,
    onnx::{self, ExternalData, SaveOptions},
};
use onnxq_pipeline::{Inputs, Job, Opened, facts, origin};
use onnxq_quant::recipe;
use onnxq_run::{
    calibrate::model_inputs,
    data::{self, Batches, DataOptions},
};
use serde_json::Value;

/// Weights that ask for statistics of their inputs, on four samples.
const LEARNING: [&str; 6] =
    ["-r", "int4", "--set", "quantize.0.weight.solver=imatrix", "--set", "calibration.samples=4"];

fn quantize(folder: &Path, model: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    command.current_dir(folder).env("NO_COLOR", "1").args(["quantize", "--json"]);
    let output = command.arg(model).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    output
}

/// With calibration data, if `learns`.
fn quantized(folder: &Path, output: &str, learns: bool, more: &[&str]) -> Output {
    let data = fixture("calibration_input_ids.npy");
    let data = ["--calibration", data.to_str().unwrap()];
    let learning = [&LEARNING[..], &data].concat();
    let args = if learns { &learning[..] } else { &["-r", "int4"] };
    quantize(folder, &fixture("model.onnx"), &[args, more, &["-f", "-o", output]].concat())
}

fn metadata(path: &Path) -> BTreeMap<String, String> {
    let loaded = onnx::open(path, &Default::default()).unwrap();
    loaded.model.metadata.iter().cloned().collect()
}

fn sha256(path: &Path) -> String {
    onnx::sha256(path).unwrap().1
}

fn batches(data: &str) -> Batches {
    batches_of(data, None)
}

fn batches_of(data: &str, samples: Option<usize>) -> Batches {
    let loaded = onnx::open(&fixture("model.onnx"), &Default::default()).unwrap();
    let options = DataOptions { batch: 3, samples, ..DataOptions::default() };
    data::open(&fixture(data), &model_inputs(&loaded.model), &options).unwrap()
}

#[test]
fn a_model_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    quantized(folder.path(), "q.onnx", false, &["--exclude", "*lm_head*"]);
    let told = metadata(&folder.path().join("q.onnx"));
    assert_eq!(told[origin::SOURCE_SHA256], sha256(&fixture("model.onnx")));
    assert_eq!(told[origin::COMMAND], "onnxq quantize model.onnx --recipe int4");
    assert_eq!(told[origin::RECIPE], "int4");
    assert_eq!(told[origin::VERSION], env!("CARGO_PKG_VERSION"));
    // The recipe in full makes the same model again.
    let yaml = &told[origin::RECIPE_YAML];
    assert!(yaml.contains("lm_head"), "{yaml}");
    fs::write(folder.path().join("again.yaml"), yaml).unwrap();
    assert_eq!(told[origin::RECIPE_SHA256], sha256(&folder.path().join("again.yaml")));
    let again = ["-r", "again.yaml", "-o", "again.onnx"];
    quantize(folder.path(), &fixture("model.onnx"), &again);
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("q.onnx") == bytes("again.onnx"), "the recipe is not all of it");
    // Nothing was learnt or run.
    let learnt = [origin::CALIBRATION_SHA256, origin::CALIBRATION_SAMPLES, origin::ONNXRUNTIME];
    assert!(learnt.iter().all(|it| !told.contains_key(*it)), "{told:?}");
}

#[test]
fn calibration_is_told_without_paths_and_times() {
    let folder = tempfile::tempdir().unwrap();
    quantized(folder.path(), "q.onnx", true, &["--threads", "1"]);
    let told = metadata(&folder.path().join("q.onnx"));
    assert_eq!(told[origin::CALIBRATION_COUNT], "4");
    let samples = batches_of("calibration_input_ids.npy", Some(4));
    let contents = samples.contents().unwrap();
    assert_eq!(told[origin::CALIBRATION_SHA256], contents.sha256);
    assert_eq!(told[origin::CALIBRATION_SAMPLES], contents.sketch.to_string());
    assert_ne!(contents.sha256, batches("calibration_input_ids.npy").contents().unwrap().sha256);
    assert_eq!(told[origin::CALIBRATION_SAMPLES].len(), 4 * 8);
    assert!(told[origin::ONNXRUNTIME].contains('.') && !told[origin::CPU].is_empty());
    for (key, value) in &told {
        assert!(!value.contains(folder.path().to_str().unwrap()), "{key}: {value}");
        assert!(!value.contains(env!("CARGO_MANIFEST_DIR")), "{key}: {value}");
        assert!(!value.contains("thread"), "{key}: {value}");
    }
    // Neither the folder, nor the name, nor threads change a byte.
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("elsewhere")).unwrap();
    quantized(other.path(), "elsewhere/other.onnx", true, &["--threads", "3"]);
    let bytes = fs::read(folder.path().join("q.onnx")).unwrap();
    let others = fs::read(other.path().join("elsewhere/other.onnx")).unwrap();
    assert!(bytes == others, "the surroundings change the result");
    // Other forms of the model keep what it says.
    let mut convert = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    let convert =
        convert.current_dir(folder.path()).args(["convert", "--to", "qdq", "-f", "q.onnx"]);
    let output = convert.args(["-o", "qdq.onnx"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(metadata(&folder.path().join("qdq.onnx")), told);
    // Quantized again, a model says how that was done.
    let first = sha256(&folder.path().join("q.onnx"));
    let again = ["-r", "int4", "-o", "again.onnx", "--allow-noop"];
    quantize(folder.path(), &folder.path().join("q.onnx"), &again);
    let told = metadata(&folder.path().join("again.onnx"));
    assert_eq!(told[origin::SOURCE_SHA256], first);
    assert!(!told.contains_key(origin::CALIBRATION_SAMPLES), "{told:?}");
}

#[test]
fn a_dry_run_knows_the_size_of_what_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for learns in [false, true] {
        let size = |more: &[&str]| {
            let output = quantized(folder.path(), "q.onnx", learns, more);
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            json["quantize"]["after"]["bytes"].as_u64().unwrap()
        };
        let written = size(&[]);
        assert_eq!(written, fs::metadata(folder.path().join("q.onnx")).unwrap().len());
        assert_eq!(size(&["--dry-run"]), written, "with calibration: {learns}");
    }
}

#[test]
fn samples_that_were_calibrated_on_are_found_by_the_metadata_alone() {
    let folder = tempfile::tempdir().unwrap();
    quantized(folder.path(), "q.onnx", true, &[]);
    let told = metadata(&folder.path().join("q.onnx"));
    let overlap = |data: &str| facts::overlap(&told, &batches(data)).unwrap().unwrap();
    let same = overlap("calibration_input_ids.npy");
    assert_eq!((same.checked, same.shared), (64, 4));
    let warning = facts::overlap_warning(&same, Path::new("ids.npy")).unwrap();
    assert_eq!((&*warning.code, warning.at.as_deref()), ("W201", Some("ids.npy")));
    assert!(warning.message.starts_with("4 of 64 evaluation samples were calibrated on"));
    assert_eq!(warning.code.parse().map(Code::exit), Ok(0));
    let other = overlap("eval_ids.npy");
    assert_eq!((other.checked, other.shared), (256, 0));
    assert_eq!(facts::overlap_warning(&other, Path::new("x")), None);
    let calibrated = facts::calibrated_on(&told).unwrap();
    assert_eq!(calibrated.samples, Some(4));
    // A model that says nothing, or nonsense, is no failure.
    let silent = facts::overlap(&BTreeMap::new(), &batches("eval_ids.npy")).unwrap();
    assert_eq!(silent, None);
    let mut hostile = told.clone();
    hostile.insert(origin::CALIBRATION_SAMPLES.into(), "\u{1b}[31m".repeat(99));
    assert_eq!(facts::overlap(&hostile, &batches("eval_ids.npy")).unwrap(), None);
}

#[test]
fn a_sample_is_the_same_in_any_batch() {
    let mut three = batches("calibration_input_ids.npy");
    let digests = three.digests().unwrap();
    assert_eq!(digests.len(), 64);
    three.one_by_one();
    let _ = three.next().unwrap().unwrap();
    assert_eq!(three.digests().unwrap(), digests);
    assert!(three.next().is_some(), "looking changes nothing");
    let facts = facts::samples(Path::new("ids.npy"), &three).unwrap();
    assert_eq!((facts.samples, facts.files.len()), (Some(64), 1));
    assert_eq!(facts.files[0].sha256, facts.sha256);
}

#[test]
fn several_files_have_one_digest() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let loaded = onnx::open(&fixture("model.onnx"), &Default::default()).unwrap();
    let save = SaveOptions { external: ExternalData::Always, ..SaveOptions::default() };
    let path = at("m.onnx");
    onnx::save(&loaded.model, &path, &save, Some(&loaded.files), &Ctx::silent()).unwrap();
    let lines = ["m.onnx", "m.onnx.data"].map(|it| format!("{}  {it}\n", sha256(&at(it))));
    fs::write(at("lines"), lines.concat()).unwrap();
    quantize(folder.path(), &path, &["-r", "int4", "-o", "q.onnx"]);
    assert_eq!(metadata(&at("q.onnx"))[origin::SOURCE_SHA256], sha256(&at("lines")));
    let loaded = onnx::open(&path, &Default::default()).unwrap();
    let facts = facts::model_facts(&path, &loaded).unwrap();
    let names: Vec<&str> = facts.files.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["m.onnx", "m.onnx.data"]);
    assert_eq!(facts.bytes, facts.files.iter().map(|it| it.bytes).sum::<u64>());
    assert_eq!(facts.bits_per_weight, Some(32.0));
}

#[test]
fn facts_of_a_quantized_model_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let output = quantized(folder.path(), "q.onnx", false, &[]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = folder.path().join("q.onnx");
    let loaded = onnx::open(&path, &Default::default()).unwrap();
    let facts = facts::model_facts(&path, &loaded).unwrap();
    assert_eq!(facts.weights[0].kind, "int4", "{:?}", facts.weights);
    let bits = facts.bits_per_weight.unwrap();
    assert!((4.0..6.0).contains(&bits), "{bits}");
    assert_eq!(facts.metadata.len(), 8);
    assert!(facts.metadata.keys().all(|it| it.starts_with("onnxq.")));
    let execution = onnxq_pipeline::execution(&loaded.model, &loaded.files, &runtime());
    let rows = facts::precision(&loaded.model, Some(&execution));
    let quantized = rows.iter().filter(|it| it.declared.is_some()).count();
    assert_eq!(quantized as u64, json["quantize"]["quantized_nodes"].as_u64().unwrap());
    assert!(rows.iter().filter(|it| it.declared.is_some()).all(|it| it.executed.is_some()));
    let stored: u64 = rows.iter().map(|it| it.bytes).sum();
    assert!(stored <= facts.bytes + facts.bytes / 2 && stored > facts.bytes / 2, "{stored}");
}

#[test]
fn what_stays_in_float_is_grouped_by_reason() {
    let int4 = recipe::load("int4").unwrap();
    let recipe = recipe::apply_set(&int4, "quantize.0.min_elements=100000").unwrap();
    let (inputs, ctx) = (Inputs::default(), Ctx::silent());
    let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
    let model = Opened::read(&fixture("model.onnx"), &Default::default(), &ctx).unwrap();
    let planned = model.prepare(&job).unwrap().plan(&job).unwrap();
    let rows = planned.plan.rows(&planned.model);
    let kept = facts::kept(&rows);
    let nodes: usize = kept.iter().map(|it| it.nodes.len()).sum();
    assert_eq!(nodes, rows.iter().filter(|it| it.kept.is_some()).count());
    assert!(nodes > 0 && kept.is_sorted_by(|a, b| a.bytes >= b.bytes));
}

#[test]
fn a_footprint_is_that_of_a_process_of_its_own() {
    use onnxq_run::worker::{FootprintJob, WorkerError, footprint};
    let library = runtime().ensure().unwrap();
    let (model, data) = (fixture("model.onnx"), fixture("calibration_input_ids.npy"));
    let bytes = fs::metadata(&model).unwrap().len();
    let job = |model: &Path| FootprintJob {
        model: model.to_owned(),
        data: data.clone(),
        tokenizer: None,
        preprocess: None,
        open: Default::default(),
        threads: 1,
        library: library.path.clone(),
        custom_ops: Vec::new(),
    };
    let exe = Path::new(env!("CARGO_BIN_EXE_onnxq"));
    let it = footprint(exe, bytes, job(&model)).unwrap();
    assert!(it.load_ms.unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        let (base, peak) = (it.base_bytes.unwrap(), it.peak_bytes.unwrap());
        assert!(peak > base + bytes && peak < base + 50 * bytes, "{it:?}");
    }
    let missing = fixture("no_such_model.onnx");
    let error = footprint(exe, bytes, job(&missing)).unwrap_err();
    assert!(matches!(error, WorkerError::Refused(_)), "{error}");
    assert!(error.to_string().contains("E905"), "{error}");
}
