//! Help texts: their examples are run as they stand, and completions know the recipes.
#![cfg(unix)]

use std::{env, fs, path::Path, process::Command};

use crate::common::{fixture, outside::run};

/// Subcommands, those first that make files which the examples of others read.
const COMMANDS: &[&str] = &[
    "quantize",
    "validate",
    "calibrate",
    "check",
    "compare",
    "completions",
    "convert",
    "distil",
    "doctor",
    "explain",
    "import",
    "inspect",
    "package",
    "pass",
    "plan",
    "recipe",
    "report",
    "run",
    "runtime",
    "serve",
];

fn examples(command: &str) -> Vec<String> {
    let help = run(&[command, "--help"]).out;
    let (_, list) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{command}: none"));
    list.replace("\\\n", " ")
        .lines()
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A folder with what the examples name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["model.onnx", "tokenizer.json"] {
        fs::copy(fixture(name), at(name)).unwrap();
    }
    for (from, to) in [("eval.txt", "test.txt"), ("calibration.txt", "calibration.txt")] {
        // What the examples show needs no more, and takes less time.
        let text = fs::read_to_string(fixture(from)).unwrap();
        fs::write(at(to), &text[..3_000]).unwrap();
    }
    fs::write(at("serve.yaml"), "models: {lm: {path: model.onnx, preset: chat}}\n").unwrap();
    fs::create_dir(at("checkpoint")).unwrap();
    let model = fixture("model.onnx");
    let checkpoint = model.parent().unwrap().with_file_name("checkpoints/llama");
    for entry in fs::read_dir(checkpoint).unwrap().map(|it| it.unwrap()) {
        fs::copy(entry.path(), at("checkpoint").join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn examples_work_as_they_stand() {
    let folder = folder();
    let program = Path::new(env!("CARGO_BIN_EXE_onnxq")).parent().unwrap();
    let path = format!("{}:{}", program.display(), env::var("PATH").unwrap());
    for command in COMMANDS {
        for line in examples(command) {
            let mut shell = Command::new("bash");
            shell.args(["-c", &line]).current_dir(folder.path()).env("PATH", &path);
            if *command == "serve" {
                // A server would not end.
                shell.env("ONNXQ_CHECK", "1");
            }
            let output = shell.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}\n{error}");
        }
        let report = folder.path().join("report/report.json");
        if report.exists() {
            fs::copy(report, folder.path().join("report.json")).unwrap();
        }
    }
}

#[test]
fn every_subcommand_has_examples() {
    let help = run(&["--help"]).out;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names =
        list.lines().filter_map(|it| it.strip_prefix("  ")).filter(|it| !it.starts_with(' '));
    let names = names.filter_map(|it| it.split(' ').next()).filter(|it| *it != "help");
    for name in names {
        assert!(COMMANDS.contains(&name), "`{name}` has no examples that are run");
    }
}

#[test]
fn rare_flags_stand_apart() {
    let help = run(&["quantize", "--help"]).out;
    let (usual, rare) = help.split_once("Advanced:\n").unwrap();
    assert!(usual.contains("--recipe") && !usual.contains("--untrusted"), "{usual}");
    for flag in ["--drop-unknown", "--untrusted", "--external-policy", "--stats", "--memory"] {
        assert!(rare.contains(flag), "{flag}");
    }
}

#[test]
fn completions_know_recipes() {
    let script = run(&["completions", "bash"]).out;
    assert!(script.contains("avx512_vnni_static") && script.contains("auto"), "{script}");
}
