//! Hostile, broken and odd models: each is refused with its code, or accepted, and never harms.

mod data;
mod messages;
mod probes;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use onnxq_ir::{
    onnx::{self, OpenOptions},
    tensor::Tensor,
};
use proptest::prelude::*;

use self::probes::{Probe, Want};
use crate::common::models::*;

/// What one run may use, of time in a debug build and of address space in KiB.
const MOST_TIME: Duration = Duration::from_secs(5);
const MOST_TIME_OF_LARGE: Duration = Duration::from_secs(20);
const LARGE: u64 = 2 << 20;
const MOST_MEMORY: u32 = 600_000;

#[test]
fn wire_format() {
    check_all(messages::wire());
}

#[test]
fn many_tiny_messages() {
    check_all(messages::bombs());
}

#[test]
fn wide_models() {
    check_all(messages::wide());
}

#[test]
fn model_local_functions() {
    check_all(messages::functions());
}

#[test]
fn external_data() {
    check_all(data::external_data());
}

#[test]
fn tensors() {
    check_all(data::tensors());
}

#[test]
fn graphs() {
    check_all(probes::graphs());
}

#[test]
fn numbers() {
    check_all(probes::numbers());
}

#[test]
fn odd_but_valid() {
    check_all(probes::odd());
}

#[test]
fn untrusted_names() {
    for probe in probes::hostile_names() {
        let folder = probe.build();
        let model = folder.path().join("in/model.onnx");
        let model = model.to_str().unwrap();
        for args in [&["inspect", model][..], &["plan", model, "-r", "int8_weights"]] {
            let run = run(args);
            assert!(matches!(run.code, 0 | 3 | 4 | 6), "{}: {args:?}: {}", probe.name, run.text);
        }
        check(&probe, folder.path());
    }
}

/// All zero and denormal weights become numbers, not NaN.
#[test]
fn weights_without_a_range_stay_finite() {
    for value in [0.0, -0.0, 1e-42, f32::MIN_POSITIVE] {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("a.onnx"), folder.path().join("b.onnx"));
        write(&input, &with_weight(floats("W", &[64, 64], &[value; 4096])));
        let run = run(&[
            "quantize",
            input.to_str().unwrap(),
            "-r",
            "int8_weights",
            "-o",
            output.to_str().unwrap(),
        ]);
        assert_eq!(run.code, 0, "{}", run.text);
        let model = onnx::open(&output, &OpenOptions::default()).unwrap().model;
        let x = Tensor::from_f32(&[1, 64], noise(64));
        let outputs = onnxq_ir::eval::run(&model, &BTreeMap::from([("X".into(), x)])).unwrap();
        let y = outputs["Y"].to_f32().unwrap();
        assert!(y.iter().all(|it| it.is_finite() && it.abs() < 1e-30), "{value}: {y:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Reading bytes with flips and cuts is a model or an error. Preparing what was read, too.
    #[test]
    fn damaged_models_never_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encode(&probes::seed());
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, &bytes).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let Ok(loaded) = onnx::open(&path, &OpenOptions::default()) else { return };
            loaded.model.verify().expect("what was read is sound");
            onnx::to_bytes(&loaded.model).expect("what was read can be written");
        }));
        if result.is_err() {
            let kept = std::env::temp_dir().join("onnxq-damaged.onnx");
            fs::write(&kept, &bytes).unwrap();
            panic!("panics: {}", kept.display());
        }
    }
}

fn check_all(probes: Vec<Probe>) {
    let fails = |probe: &Probe| {
        let folder = probe.build();
        catch_unwind(AssertUnwindSafe(|| check(probe, folder.path()))).is_err()
    };
    let failed: Vec<String> = probes.into_iter().filter(fails).map(|it| it.name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Runs `check` and `quantize`; nothing may be left behind unless it was a success.
fn check(probe: &Probe, folder: &Path) {
    let Want { check, quantize, code } = probe.want;
    let name = &probe.name;
    let model = folder.join("in/model.onnx");
    let out = folder.join("out");
    fs::create_dir(&out).unwrap();
    let (old, new) = (out.join("old.onnx"), out.join("new.onnx"));
    fs::write(&old, "an older model").unwrap();
    let inode = fs::metadata(&old).unwrap().ino();
    let model = model.to_str().unwrap();

    let checked = run(&["check", model]);
    assert_eq!(checked.code, check, "{name}: check: {}", checked.text);
    let quantize_to = |path: &Path, force: &[&str]| {
        let args = ["quantize", model, "-r", "int8_weights", "-o", path.to_str().unwrap()];
        let args: Vec<&str> = args.iter().chain(probe.flags).chain(force).copied().collect();
        run(&args)
    };
    let first = quantize_to(&new, &[]);
    assert_eq!(first.code, quantize, "{name}: quantize: {}", first.text);
    assert!(first.text.contains(code), "{name}: no {code} in {}", first.text);
    if quantize == 0 {
        assert!(list(&out).contains(&new), "{name}: no output");
        onnx::open(&new, &OpenOptions::default()).unwrap();
        return;
    }
    if quantize == 6 && probe.size() > LARGE / 8 {
        // Once is enough for what costs seconds.
        assert_eq!(list(&out), [old], "{name}: something was left");
        return;
    }
    let second = quantize_to(&old, &["--force"]);
    assert_eq!(second.code, quantize, "{name}: again: {}", second.text);
    assert_eq!(list(&out), std::slice::from_ref(&old), "{name}: something was left");
    assert_eq!(fs::read(&old).unwrap(), b"an older model", "{name}");
    assert_eq!(fs::metadata(&old).unwrap().ino(), inode, "{name}");
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    list.sort();
    list
}

struct Run {
    code: i32,
    text: String,
}

/// A run within limits of time and memory, whose output is clean.
fn run(args: &[&str]) -> Run {
    let script = format!("ulimit -v {MOST_MEMORY}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_onnxq")]).args(args);
    // Each thread reserves address space, and a machine may have many.
    command.env("RAYON_NUM_THREADS", "1").env("MALLOC_ARENA_MAX", "1");
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    let start = Instant::now();
    let output = command.output().unwrap();
    let time = start.elapsed();
    let shown = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(shown).unwrap_or_else(|_| panic!("{args:?}: not UTF-8"));
    let code = output.status.code().unwrap_or_else(|| panic!("{args:?}: a signal: {text}"));
    assert!(!matches!(code, 70 | 101), "{args:?}: a panic: {text}");
    let size = fs::metadata(args[1]).map_or(0, |it| it.len());
    let most = if size > LARGE { MOST_TIME_OF_LARGE } else { MOST_TIME };
    assert!(time < most, "{args:?}: {time:?}");
    if let Some(bad) = text.chars().find(|it| is_dangerous(*it)) {
        panic!("{args:?}: prints {bad:?}: {text:?}");
    }
    Run { code, text }
}

/// Written apart from the program's own table.
fn is_dangerous(it: char) -> bool {
    let bidi = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    it.is_control() && it != '\n'
        || bidi.contains(&it)
        || ('\u{202a}'..='\u{202e}').contains(&it)
        || ('\u{2066}'..='\u{2069}').contains(&it)
}
