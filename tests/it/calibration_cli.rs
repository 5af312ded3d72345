//! `quantize` with solvers that need data, from outside: what it proves, refuses and survives.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::fixture;
use serde_json::Value;
use tempfile::TempDir;

fn onnxq(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    command.current_dir(folder.path()).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command.args(args).arg(fixture("model.onnx"));
    command
}

/// `onnxq quantize` with a 4-bit recipe on a few samples; `more` may change everything.
fn quantize(folder: &TempDir, output: &str, more: &[&str]) -> Command {
    let mut command = onnxq(folder, &["quantize"]);
    command.args(["-r", "int4_quality", "--set", "calibration.samples=8", "-f", "-o", output]);
    command.arg("--calibration").arg(fixture("calibration_input_ids.npy")).args(more);
    command
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    output
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_weight_says_how_far_its_output_is_off() {
    let folder = tempfile::tempdir().unwrap();
    let output = finish(quantize(&folder, "q.onnx", &["--json"]));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<&Value> = json["quantize"]["nodes"].as_array().unwrap().iter().collect();
    let solved: Vec<&&Value> = rows.iter().filter(|it| it["solver"] == "gptq").collect();
    assert_eq!(solved.len(), 29);
    for row in solved {
        let error = &row["error"];
        assert_eq!(error["measure"], "hessian", "{row}");
        let (rtn, solved) = (error["rtn"].as_f64().unwrap(), error["solved"].as_f64().unwrap());
        assert!(solved > 0.0 && solved <= rtn, "{row}");
    }
    // What a dry run predicts is what was written.
    let written = fs::metadata(folder.path().join("q.onnx")).unwrap().len();
    let dry = finish(quantize(&folder, "other.onnx", &["--dry-run", "--json"]));
    let json: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(json["quantize"]["after"]["bytes"], written);
    // Statistics that nobody asked for are gone.
    assert_eq!(names(folder.path()), ["q.onnx"]);
}

#[test]
fn a_dry_run_knows_what_transforms_add() {
    let folder = tempfile::tempdir().unwrap();
    for transform in ["transforms.0=awq", "transforms.0.awq.mul=true"] {
        let more = ["--set", transform, "-r", "int4", "--json"];
        let json = |output: Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
        let made = json(finish(transformed(&folder, &more)));
        let written = fs::metadata(folder.path().join("q.onnx")).unwrap().len();
        assert_eq!(made["quantize"]["after"]["bytes"], written, "{transform}");
        let dry = json(finish(transformed(&folder, &[&more[..], &["--dry-run"]].concat())));
        assert_eq!(dry["quantize"]["after"]["bytes"], written, "{transform}");
    }
}

fn transformed(folder: &TempDir, more: &[&str]) -> Command {
    let mut command = onnxq(folder, &["quantize", "-f", "-o", "q.onnx"]);
    command.args(["--set", "calibration.samples=2"]).args(more);
    command.arg("--calibration").arg(fixture("calibration_input_ids.npy"));
    command
}

#[test]
fn what_guided_solvers_learn_is_kept_and_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let stats = |output: &str, solver: &str, file: &str| {
        let solver = format!("quantize.0.weight.solver={solver}");
        let more = ["--set", "calibration.sequential=false", "--set", &solver, "--stats", file];
        quantize(&folder, output, &more)
    };
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    for solver in
        ["{gptq: {hessian: guided, groups: 3}}", "{signround: {hessian: guided, iterations: 3}}"]
    {
        finish(stats("a.onnx", solver, "guided"));
        finish(stats("b.onnx", solver, "guided"));
        assert!(read("a.onnx") == read("b.onnx"), "{solver}");
        fs::remove_file(folder.path().join("guided")).unwrap();
    }
    finish(stats("a.onnx", "gptq", "plain"));
    let output = stats("b.onnx", "{gptq: {hessian: guided}}", "plain").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0));
    assert!(error.contains("E611") && error.contains("tokens count differently"), "{error}");
    // Sequential, where layers see quantized ones before them.
    let guided = "quantize.0.weight.solver={gptq: {hessian: guided, groups: 2}}";
    for output in ["a.onnx", "b.onnx"] {
        finish(quantize(&folder, output, &["--set", guided, "--stats", "sequential"]));
    }
    assert!(read("a.onnx") == read("b.onnx"));
}

#[test]
fn a_solver_without_data_says_what_to_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = onnxq(&folder, &["quantize", "-r", "int4_quality", "-o", "q.onnx"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("error[E610]"), "{error}");
    assert!(error.contains("--calibration"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn threads_and_a_file_of_statistics_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    finish(quantize(&folder, "a.onnx", &["--threads", "1", "--stats", "s.safetensors"]));
    let mut eight = quantize(&folder, "b.onnx", &["--threads", "8"]);
    eight.env("RAYON_NUM_THREADS", "8");
    finish(eight);
    // The file is enough.
    let mut again = onnxq(&folder, &["quantize", "-r", "int4_quality", "-o", "c.onnx"]);
    // The model holds its recipe, so that is the same too.
    again.args(["--stats", "s.safetensors", "--set", "calibration.samples=8"]);
    finish(again);
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("a.onnx") == bytes("b.onnx"), "threads change the result");
    assert!(bytes("a.onnx") == bytes("c.onnx"), "the file of statistics changes the result");
    let mut counted = onnxq(&folder, &["quantize", "-r", "int4_quality", "-o", "e.onnx"]);
    counted.args(["--calibration-samples", "8", "--calibration"]);
    counted.arg(fixture("calibration_input_ids.npy"));
    finish(counted);
    assert!(bytes("a.onnx") == bytes("e.onnx"), "the flag is not what --set is");
    // It belongs to this model, and to no plan with other layers before.
    let mut other = onnxq(&folder, &["quantize", "-r", "int4_quality", "-o", "d.onnx"]);
    other.args(["--stats", "s.safetensors", "--set", "calibration.sequential=false"]);
    let output = other.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("E611"));
}

#[test]
fn a_killed_run_goes_on_and_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    finish(quantize(&folder, "whole.onnx", &[]));
    let mut command = quantize(&folder, "q.onnx", &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = folder.path().join("q.onnx.stats.part");
    kill_once_it_holds(&mut child, &log, 200_000);
    let left = fs::metadata(&log).expect("the log of a killed run stays").len();
    assert!(left >= 200_000);
    let resumed = quantize(&folder, "q.onnx", &[]).output().unwrap();
    let said = String::from_utf8(resumed.stderr).unwrap();
    assert!(resumed.status.success(), "{said}");
    let line = said.lines().find(|line| line.trim_start().starts_with("resume ")).expect(&said);
    assert!(line.contains("inputs are in q.onnx.stats.part; "), "{line}");
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("q.onnx") == bytes("whole.onnx"), "resuming changes the result");
    assert_eq!(names(folder.path()), ["q.onnx", "whole.onnx"]);
}

/// `kill -9` in the middle: after some passes, before the last.
fn kill_once_it_holds(child: &mut Child, log: &Path, bytes: u64) {
    let start = Instant::now();
    loop {
        if fs::metadata(log).is_ok_and(|it| it.len() >= bytes) {
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(start.elapsed() < Duration::from_secs(120), "nothing is collected");
        thread::sleep(Duration::from_millis(1));
    }
}
