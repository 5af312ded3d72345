//! The examples are run, not only shown.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

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

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&fs::read_to_string(root(path)).unwrap()).unwrap()
}

/// The steps of all jobs of the workflow.
fn steps() -> Vec<Value> {
    let workflow = yaml("examples/github-actions.yml");
    let jobs = workflow["jobs"].as_object().unwrap().values();
    jobs.flat_map(|job| job["steps"].as_array().unwrap().clone()).collect()
}

/// The scripts of both pipelines.
fn scripts() -> Vec<String> {
    let script = |step: &Value| step["run"].as_str().map(str::to_owned);
    let mut list: Vec<String> = steps().iter().filter_map(script).collect();
    let gitlab = yaml("examples/gitlab-ci.yml");
    for job in ["prove", "publish"] {
        let lines = gitlab[job]["script"].as_array().unwrap();
        list.extend(lines.iter().map(|line| line.as_str().unwrap().to_owned()));
    }
    list
}

/// Flags that no longer exist would fail with exit code 2; a file that is not there has others.
#[test]
fn the_pipelines_call_what_exists() {
    let text = scripts().join("\n").replace("\\\n", " ");
    let commands = text.lines().filter_map(|line| line.trim().strip_prefix("onnxq "));
    let checked = commands.filter(|it| !it.starts_with("runtime") && *it != "doctor");
    let mut count = 0;
    for command in checked {
        let script = format!("exec \"$ONNXQ\" {command}");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("ONNXQ", env!("CARGO_BIN_EXE_onnxq"))
            .env("RECIPE", "avx2")
            .current_dir(tempfile::tempdir().unwrap().path())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        // All that is wrong is that the files of the example are not here.
        assert!(error.contains("error[E905]"), "{command}: {error}");
        assert!(!error.contains("Usage:"), "{command}: {error}");
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn scripts_of_the_pipelines_are_shell() {
    for script in scripts() {
        let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success(), "{script}\n{}", text(&checked));
        // What is filled in from outside would be run.
        assert!(!script.contains("${{"), "{script}");
    }
}

#[test]
fn the_workflow_trusts_and_may_no_more_than_needed() {
    let source = fs::read_to_string(root("examples/github-actions.yml")).unwrap();
    let workflow = yaml("examples/github-actions.yml");
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    let prove = serde_json::json!({"contents": "read", "security-events": "write"});
    assert_eq!(workflow["jobs"]["prove"]["permissions"], prove);
    let publish = &workflow["jobs"]["publish"];
    assert_eq!(publish["permissions"], serde_json::json!({"contents": "write"}));
    assert_eq!(publish["if"], "github.event_name == 'push'");
    for step in steps() {
        let Some(action) = step["uses"].as_str() else { continue };
        let (name, commit) = action.split_once('@').unwrap();
        let is_commit = commit.len() == 40 && commit.chars().all(|it| it.is_ascii_hexdigit());
        assert!(is_commit && source.contains(&format!("{action} # v")), "{action}");
        if name == "actions/checkout" {
            assert_eq!(step["with"]["persist-credentials"], false);
        }
        if name.ends_with("/upload-sarif") {
            assert_eq!(step["if"], "always() && hashFiles('out/report/report.sarif') != ''");
        }
    }
}

/// The sums of what is released name files as they lie in one folder, weights beside the graph too.
#[test]
fn what_is_released_can_be_checked_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("out"), folder.path().join("out/report"));
    fs::create_dir_all(&report).unwrap();
    for name in ["model.onnx", "model.onnx.data"] {
        fs::write(out.join(name), name).unwrap();
    }
    for name in ["report.json", "report.md", "index.html"] {
        fs::write(report.join(name), name).unwrap();
    }
    let script = scripts().into_iter().find(|it| it.starts_with("mkdir release")).unwrap();
    let shell = |script: &str, place: &Path| {
        let output = Command::new("bash").args(["-ec", script]).current_dir(place).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{script}\n{}", text(&output));
        text(&output)
    };
    shell(&script, folder.path());
    let checked = shell("sha256sum --check SHA256SUMS", &folder.path().join("release"));
    assert!(checked.contains("model.onnx.data: OK"), "{checked}");
    assert_eq!(checked.lines().count(), 5, "{checked}");
}

/// Its reports are called as the program calls them.
#[test]
fn the_other_pipeline_finds_its_reports() {
    let reports = yaml("examples/gitlab-ci.yml")["prove"]["artifacts"]["reports"].clone();
    for (what, format) in [("junit", "junit"), ("codequality", "gitlab")] {
        let name = onnxq_report::emit::emitter(format).unwrap().file;
        assert_eq!(reports[what], format!("out/report/{name}"));
    }
}
