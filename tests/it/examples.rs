//! The examples are run, not only shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::common::for_this_cpu;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn release(folder: &Path, name: &str, variables: &[(&str, &str)]) -> Output {
    let fixture = root("fixtures/slm-fixture");
    Command::new("bash")
        .arg(root("examples/release.sh"))
        .args([fixture.join("model.onnx"), folder.join(name)])
        .args([Path::new("--data"), &fixture.join("eval.txt")])
        .args([Path::new("--tokenizer"), &fixture.join("tokenizer.json")])
        .args(["--samples", "8"])
        .env("ONNXQ", env!("CARGO_BIN_EXE_onnxq"))
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_release_is_built_gated_and_published() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = for_this_cpu("avx512_vnni");
    let first = release(folder.path(), "v1", &[("PUBLISH", "ls -R"), ("RECIPE", recipe)]);
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("index.html"), "PUBLISH was not called:\n{}", text(&first));
    let v1 = folder.path().join("v1");
    for file in ["model.onnx", "report/report.json", "report/index.html", "report/model-card.md"] {
        assert!(v1.join(file).is_file(), "{file}");
    }
    let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&v1).output();
    assert!(sums.unwrap().status.success());

    // Four bits are worse than the last release, which the baseline does not allow.
    let baseline = v1.join("report/report.json");
    let variables = [("RECIPE", "int4"), ("GATES", ""), ("BASELINE", baseline.to_str().unwrap())];
    let worse = release(folder.path(), "v2", &variables);
    assert_eq!(worse.status.code(), Some(1), "{}", text(&worse));
    assert!(text(&worse).contains("logits:kl.mean"), "{}", text(&worse));
    assert!(!folder.path().join("v2").exists());
    assert!(folder.path().join("v2.rejected/index.html").is_file());
}

#[test]
fn a_missed_gate_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let missed = release(folder.path(), "v1", &[("GATES", "kl.mean<=1e-9")]);
    assert_eq!(missed.status.code(), Some(1), "{}", text(&missed));
    assert!(!folder.path().join("v1").exists());
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["v1.rejected"]);
}

/// Flags that no longer exist would fail with exit code 2; a file that is not there has others.
#[test]
fn the_workflow_calls_what_exists() {
    let text = fs::read_to_string(root("examples/github-actions.yml")).unwrap();
    let workflow: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let steps = workflow["jobs"]["release"]["steps"].as_array().unwrap();
    let runs = steps.iter().filter_map(|it| it["run"].as_str());
    let commands: Vec<&str> =
        runs.flat_map(str::lines).filter_map(|it| it.trim().strip_prefix("onnxq ")).collect();
    let checked = commands.iter().filter(|it| !it.starts_with("runtime") && **it != "doctor");
    let mut count = 0;
    for command in checked {
        let script = format!("exec \"$ONNXQ\" {command}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("ONNXQ", env!("CARGO_BIN_EXE_onnxq"))
            .current_dir(tempfile::tempdir().unwrap().path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        // All that is wrong is that the files of the example are not here.
        assert!(error.contains("error[E905]"), "{command}: {error}");
        assert!(!error.contains("Usage:"), "{command}: {error}");
        count += 1;
    }
    assert_eq!(count, 2);
}
