//! Mixed precision from outside: goals are met, predictions hold, and nothing depends on threads.

use std::fs;

use crate::common::fixture;
use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// Quantizes the fixture by `int4` on two samples; stdout, stderr, exit code.
fn run(output: &str, args: &[&str]) -> (String, String, i32) {
    let data = |name: &str| fixture(name).to_str().unwrap().to_owned();
    let mut command = Command::cargo_bin("onnxq").unwrap();
    command.args(["quantize", &data("model.onnx"), "-f", "-o", output, "-r", "int4"]);
    command.args(["--calibration", &data("calibration_input_ids.npy")]);
    command.args(["--set", "calibration={samples: 2}"]).args(args);
    let output = command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

fn json(output: &str, args: &[&str]) -> Value {
    let (out, error, code) = run(output, &[args, &["--json"]].concat());
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&out).unwrap()
}

fn place() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx").to_str().unwrap().to_owned();
    (folder, path)
}

/// The chosen line of the table.
fn chosen(mixed: &Value) -> &Value {
    let table = mixed["table"].as_array().unwrap();
    assert!((2..=16).contains(&table.len()), "{table:?}");
    let of = |key: &str| table.iter().map(|it| it[key].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(of("bytes").is_sorted() && of("bpw").is_sorted(), "{table:?}");
    let mut chosen = table.iter().filter(|it| it["chosen"] == true);
    let first = chosen.next().unwrap();
    assert!(chosen.next().is_none(), "{table:?}");
    first
}

#[test]
fn a_mix_beats_the_uniform_plan_of_its_size_for_any_number_of_threads() {
    let (_folder, path) = place();
    let ids = fixture("eval_ids.npy");
    let validate = format!("--validate={}", ids.to_str().unwrap());
    let validate = [&*validate, "--samples", "4"];
    let kl = |it: &Value| it["validate"]["outputs"]["logits"]["kl"]["mean"].as_f64();
    let block = ["--set", "quantize.0.weight.granularity.block=64"];
    let uniform = json(&path, &[&validate[..], &block].concat());
    let size = fs::metadata(&path).unwrap().len();

    let limit = size.to_string();
    let goal = [&validate[..], &["--max-size", &limit]].concat();
    let mixed = json(&path, &[&goal[..], &["--threads", "2"]].concat());
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() as u64 <= size, "{} > {size}", bytes.len());
    assert_eq!(chosen(&mixed["quantize"]["mixed"])["bytes"], bytes.len());
    assert!(kl(&mixed) < kl(&uniform), "{:?} ≥ {:?}", kl(&mixed), kl(&uniform));
    json(&path, &["--max-size", &limit, "--threads", "1"]);
    assert!(fs::read(&path).unwrap() == bytes, "the result depends on threads");
}

#[test]
fn bits_per_weight_are_met_within_a_hundredth() {
    let (_folder, path) = place();
    let it = json(&path, &["--target-bpw", "5"]);
    let mixed = &it["quantize"]["mixed"];
    assert_eq!(mixed["goal"]["target_bpw"], 5.0);
    let bpw = chosen(mixed)["bpw"].as_f64().unwrap();
    assert!((4.95..=5.0).contains(&bpw), "{bpw}");
    let weights = mixed["weights"].as_array().unwrap();
    let sum = |key: &str| weights.iter().map(|it| it[key].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("bytes") * 8.0 / sum("elements"), bpw);
    // What was predicted weight by weight is what was measured of all together, roughly.
    let ratio = mixed["loss"].as_f64().unwrap() / sum("loss");
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
}

#[test]
fn a_divergence_is_kept_or_said_to_be_out_of_reach() {
    let (_folder, path) = place();
    let it = json(&path, &["--max-kl", "0.01"]);
    let loss = it["quantize"]["mixed"]["loss"].as_f64().unwrap();
    assert!((0.005..=0.01).contains(&loss), "{loss}");
    fs::remove_file(&path).unwrap();
    let (out, error, code) = run(&path, &["--max-kl", "1e-9"]);
    assert_eq!((out.as_str(), code), ("", 2));
    let start = "error[E615]: no mix has a KL divergence of at most 0.000000001: the best measured";
    assert!(error.contains(start) && error.contains("under `mixed`"), "{error}");
    let (_, error, code) = run(&path, &["--max-size", "100kB"]);
    assert_eq!(code, 2);
    assert!(error.contains("error[E615]: no mix is as small as 100.0 kB: "), "{error}");
    assert!(fs::metadata(&path).is_err());
}

#[test]
fn the_table_shows_what_was_possible() {
    let (_folder, path) = place();
    let (out, error, code) = run(&path, &["--target-bpw", "6"]);
    assert_eq!(code, 0, "{error}");
    let at = out.find("mix for").unwrap();
    let lines: Vec<&str> = out[at..].lines().take_while(|it| !it.is_empty()).collect();
    let title = "mix for at most 6 bits per weight; loss measured on 2 samples: 0.";
    assert!(lines[0].starts_with(title), "{out}");
    let header: Vec<&str> = lines[1].split_whitespace().collect();
    insta::assert_snapshot!(header.join(" "), @"bytes bits per weight predicted loss");
    assert!((2..=16).contains(&(lines.len() - 2)), "{out}");
    assert_eq!(lines.iter().filter(|it| it.ends_with("  chosen")).count(), 1, "{out}");
}

#[test]
fn goals_need_data_and_exclude_each_other() {
    let (_folder, path) = place();
    let (_, error, code) = run(&path, &["--target-bpw", "5", "--max-kl", "1"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot be used with"), "{error}");
    let model = fixture("model.onnx");
    let mut command = Command::cargo_bin("onnxq").unwrap();
    command.args(["quantize", model.to_str().unwrap(), "-qr", "int4", "-o", &path]);
    let output = command.args(["--max-size", "1MB"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("error[E610]: choosing bits by measurement needs"), "{error}");
    let one = ["--set", "mixed={candidates: [{dtype: uint4}]}", "--max-size", "1MB"];
    let (_, error, code) = run(&path, &one);
    assert_eq!(code, 2);
    assert!(error.contains("error[E615]: no weight of the plan has two"), "{error}");
}
