//! `-`: models from standard input, results to standard output.

use std::{fs, path::Path};

use assert_cmd::Command;

use crate::common::{
    fixture,
    outside::{Place, run},
};

/// What a run on `input` wrote to each stream, and its code. Its streams lie in `place`.
struct Piped {
    out: Vec<u8>,
    error: String,
    code: i32,
}

fn piped(args: &[&str], input: &[u8], place: &Place) -> Piped {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    command.args(args).write_stdin(input).env("NO_COLOR", "1").env("TMPDIR", place.path(""));
    let output = command.output().unwrap();
    let streams = place.files().into_iter().filter(|it| it.starts_with("onnxq-stream"));
    assert_eq!(streams.count(), 0, "{args:?} leaves its streams behind");
    let error = String::from_utf8(output.stderr).unwrap();
    Piped { out: output.stdout, error, code: output.status.code().unwrap() }
}

fn original() -> String {
    fixture("model.onnx").to_str().unwrap().to_owned()
}

fn model() -> Vec<u8> {
    fs::read(original()).unwrap()
}

fn data() -> String {
    fixture("eval_ids.npy").to_str().unwrap().to_owned()
}

#[test]
fn what_reads_a_model_reads_standard_input() {
    let (place, original, data) = (Place::new(), original(), data());
    let (original, stats) = (&*original, place.path("m.stats"));
    let judged = ["--data", &*data, "--samples", "1"];
    let commands: [&[&str]; 9] = [
        &["check", "-"],
        &["inspect", "-", "--io"],
        &["inspect", "-", "--lint"],
        &["plan", "-", "-r", "int4"],
        &["pass", "-"],
        &["convert", "-", "--strip"],
        &[&["validate", original, "-", "--no-latency"], &judged[..]].concat(),
        &[&["compare", "-", original], &judged[..]].concat(),
        &[&["calibrate", "-", "-r", "int4", "-o", &stats], &judged[..]].concat(),
    ];
    for args in commands {
        let ran = piped(args, &model(), &place);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.error);
        let named: Vec<&str> =
            args.iter().map(|arg| if *arg == "-" { original } else { arg }).collect();
        assert_eq!(String::from_utf8(ran.out).unwrap(), run(&named).out, "{args:?}");
    }
}

#[test]
fn what_makes_a_model_writes_standard_output() {
    let place = Place::new();
    let fixed = ["inspect", "-", "--lint", "--fix", "-o", "-"];
    let commands: [&[&str]; 4] = [
        &["quantize", "-", "-r", "int4", "-o", "-"],
        &["convert", "-", "--to", "float16", "-o", "-"],
        &["pass", "standard", "-", "-o", "-"],
        &fixed,
    ];
    for args in commands {
        let ran = piped(args, &model(), &place);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.error);
        assert!(!ran.error.contains("onnxq-stream"), "{args:?}: {}", ran.error);
        let made = place.write("made.onnx", &ran.out);
        assert_eq!(run(&["check", &made]).code, 0, "{args:?}");
    }
}

#[test]
fn commands_follow_each_other_in_a_pipe() {
    let place = Place::new();
    // Text goes on as text.
    let text = piped(&["pass", "standard", "-", "--trace"], &model(), &place);
    let text = piped(&["pass", "-"], &text.out, &place);
    assert_eq!(text.code, 0, "{}", text.error);
    let (made, data) = (place.write("text.onnx", &text.out), data());
    let args = ["validate", "-", "-", "--data", &data];
    assert_eq!(piped(&args, &text.out, &place).code, 2);
    assert_eq!(run(&["check", &made]).code, 3);
    let args = ["validate", &original(), "-", "--data", &data];
    let flags = ["--samples", "1", "--no-latency", "--json"];
    let report = piped(&[&args[..], &flags].concat(), &model(), &place);
    let shown = piped(&["report", "-", "-o", "-", "--format", "markdown"], &report.out, &place);
    let shown = String::from_utf8(shown.out).unwrap();
    assert!(shown.starts_with("## ⚪ NOT JUDGED"), "{shown}");
    let report: serde_json::Value = serde_json::from_slice(&report.out).unwrap();
    assert_eq!(report["models"]["candidate"]["path"], "-");
}

#[test]
fn a_missed_gate_writes_nothing_to_standard_output() {
    let (place, data) = (Place::new(), data());
    let args = ["quantize", "-", "-r", "int4", "-o", "-", "--data", &data, "--samples", "1"];
    let judged =
        |gate| piped(&[&args[..], &["--no-latency", "--gate", gate]].concat(), &model(), &place);
    let missed = judged("size_ratio<=0.000001");
    assert_eq!((missed.code, missed.out.len()), (1, 0), "{}", missed.error);
    assert!(missed.error.ends_with("nothing was written\n"), "{}", missed.error);
    assert_eq!(place.files(), [""; 0]);
    let kept = judged("size_ratio<=1");
    assert_eq!(kept.code, 0, "{}", kept.error);
    let made = place.write("made.onnx", &kept.out);
    assert_eq!(run(&["check", &made]).code, 0);
}

#[test]
fn one_file_is_all_that_a_stream_carries() {
    let place = Place::new();
    let external = place.path("external.onnx");
    let args = ["convert", &original(), "-o", &external];
    assert_eq!(run(&[&args[..], &["--external-data", "one-file"]].concat()).code, 0);
    let refused = piped(&["inspect", "-"], &fs::read(&external).unwrap(), &place);
    assert_eq!(refused.code, 2);
    assert!(refused.error.contains("has its data in another file"), "{}", refused.error);
    assert!(refused.error.contains("hint: give the path of the .onnx file"), "{}", refused.error);
    let args = ["quantize", &*external, "-r", "int4", "-o", "-"];
    let refused = piped(&[&args[..], &["--external-data", "always"]].concat(), b"", &place);
    assert_eq!((refused.code, refused.out.len()), (2, 0), "{}", refused.error);
    // What lay in two files fits into one.
    let made = piped(&args, b"", &place);
    assert_eq!(made.code, 0, "{}", made.error);
    let made = place.write("made.onnx", &made.out);
    assert_eq!(run(&["check", &made]).code, 0);
    assert!(Path::new(&external).exists());
}

/// Opening a pipe would wait for a writer, and reading a device would never end.
#[test]
fn pipes_and_devices_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (pipe, model) = (pipe.display().to_string(), fixture("model.onnx").display().to_string());
    let text = fixture("eval.txt").display().to_string();
    for arguments in [
        vec!["validate", &model, &model, "--data", &text, "--tokenizer", &pipe],
        vec!["quantize", &model, "-r", &pipe, "-o", "o.onnx"],
        vec!["report", &pipe, "--format", "html", "-o", "x.html"],
        vec!["runtime", "install", "--from-wheel", &pipe],
        vec!["quantize", &model, "-o", &pipe, "-f"],
        vec!["quantize", &model, "-o", "/dev/null", "-f"],
        vec!["check", &pipe],
    ] {
        let mut command = Command::cargo_bin("onnxq").unwrap();
        let run = command.current_dir(folder.path()).args(&arguments).output().unwrap();
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(matches!(run.status.code(), Some(2 | 5)), "{arguments:?}: {error}");
    }
}
