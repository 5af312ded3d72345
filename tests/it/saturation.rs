//! Recipes for CPUs without VNNI keep 8 bits where data shows that to lose less than 7.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const K: usize = 64;
const N: usize = 24;

/// Numbers from 0 to 1 without a pattern that matters.
fn noise(seed: u32) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 24) as f32
    })
}

/// Weights that are all large: neighbours of one sign often overflow.
fn flat() -> impl Iterator<Item = f32> {
    noise(6).map(|it| if it < 0.5 { -1.0 - it } else { 1.0 + it })
}

/// Most weights are small, as those of trained layers.
fn bell() -> impl Iterator<Item = f32> {
    let pairs = noise(7).zip(noise(8)).zip(noise(9).zip(noise(10)));
    pairs.map(|((a, b), (c, d))| (a + b + c + d - 2.0).powi(5))
}

fn list(values: impl Iterator<Item = f32>) -> String {
    values.take(K * N).fold(String::new(), |mut text, it| {
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{it:?}").unwrap();
        text
    })
}

/// A model of two layers that read the same values, and samples for it.
struct Place(TempDir);

impl Place {
    fn new(op: &str) -> Place {
        let it = Place(tempfile::tempdir().unwrap());
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>
             main (float[batch,16,{K}] x) => (float[batch,16,{N}] p, float[batch,16,{N}] q)
             <float[{K},{N}] flat = {{{}}}, float[{K},{N}] bell = {{{}}}> {{
               p = {op} (x, flat)
               q = {op} (x, bell)
             }}",
            list(flat()),
            list(bell())
        );
        fs::write(it.path("model.onnxtxt"), text).unwrap();
        it.data("data.npy", &[0, 1, 2, 3, 4, 5]);
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Samples of values above zero, in an order.
    fn data(&self, name: &str, order: &[u32]) {
        let shape = format!("({}, 16, {K})", order.len());
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16 + 1).to_le_bytes());
        bytes.extend(header.bytes().chain([b'\n']));
        for sample in order {
            bytes.extend(noise(20 + sample).take(16 * K).flat_map(f32::to_le_bytes));
        }
        fs::write(self.path(name), bytes).unwrap();
    }

    /// What `quantize` prints.
    fn quantize(&self, output: &str, recipe: &str, more: &[&str]) -> String {
        let mut command = Command::cargo_bin("onnxq").unwrap();
        command.current_dir(self.0.path()).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
        command.args(["quantize", "model.onnxtxt", "-f", "-o", output, "-r", recipe]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, recipe: &str, more: &[&str]) -> Value {
        let out = self.quantize("q.onnx", recipe, &[more, &["--json"]].concat());
        let it: Value = serde_json::from_str(&out).unwrap();
        it["quantize"].clone()
    }
}

const DATA: [&str; 2] = ["--calibration", "data.npy"];
const LESS_THAN_VNNI: &str = "x86-64 with AVX512-VNNI or AVX-VNNI";

fn node<'a>(it: &'a Value, weight: &str) -> &'a Value {
    let mut nodes = it["nodes"].as_array().unwrap().iter();
    nodes.find(|it| it["weight"] == weight).unwrap_or_else(|| panic!("no {weight} in {it}"))
}

#[test]
fn a_layer_keeps_its_bit_where_that_costs_less_than_what_saturates() {
    let place = Place::new("MatMul");
    for recipe in ["avx2", "avx2_static"] {
        // Whatever the data says of the activation, it is to be quantized.
        let candidates = if recipe == "avx2" { "{range: dynamic}" } else { "{range: static}" };
        let candidates = format!("adapt={{candidates: [{{activation: {candidates}}}]}}");
        let it = place.json(recipe, &[&DATA[..], &["--set", &candidates]].concat());
        let (flat, bell) = (node(&it, "flat"), node(&it, "bell"));
        assert_eq!(flat["scheme"], "int8 per channel reduced range", "{it}");
        assert_eq!(bell["scheme"], "int8 per channel", "{it}");
        let reason = |it: &Value| it["saturation"]["reason"].as_str().unwrap().to_owned();
        assert!(reason(flat).starts_with("7 bits: without VNNI "), "{flat}");
        assert!(reason(flat).contains(" of the pairs saturate, error "), "{flat}");
        assert!(reason(bell).starts_with("8 bits: "), "{bell}");
        assert_eq!(it["int8"]["measured"], serde_json::json!({"eight": 1, "seven": 1}));
        let unsafe_layers = it["int8"]["unsafe"].as_array().unwrap();
        assert_eq!((it["int8"]["layers"].as_u64(), unsafe_layers.len()), (Some(2), 1), "{it}");
    }
}

#[test]
fn without_data_all_weights_have_seven_bits_and_are_exact_anywhere() {
    let place = Place::new("MatMul");
    let it = place.json("avx2", &[]);
    for weight in ["flat", "bell"] {
        assert_eq!(node(&it, weight)["scheme"], "int8 per channel reduced range");
        let note = node(&it, weight)["note"].as_str().unwrap();
        assert!(note.starts_with("7 bits: no calibration data"), "{note}");
    }
    assert_eq!(it["int8"]["exact_on"], serde_json::json!(["x86-64", "arm64"]));
    let vnni = place.json("avx512_vnni", &[]);
    assert_eq!(vnni["int8"]["exact_on"], serde_json::json!([LESS_THAN_VNNI, "arm64"]));
    assert!(vnni["int8"].get("measured").is_none(), "{vnni}");
}

#[test]
fn the_report_names_the_cpus() {
    let place = Place::new("MatMul");
    let line = |text: &str| {
        let found = text.lines().find(|it| it.starts_with("int8 exact on "));
        found.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let vnni = place.quantize("q.onnx", "avx512_vnni", &[]);
    let only = format!(
        "int8 exact on {LESS_THAN_VNNI} and arm64 only: on older CPUs 2 of 2 layers can saturate \
         (see `onnxq explain avx2`)"
    );
    assert_eq!(line(&vnni), only);
    let all = "int8 exact on every x86-64 and arm64 CPU: 0 of 2 layers can saturate";
    assert_eq!(line(&place.quantize("q.onnx", "avx2", &[])), all);
    let measured = place.quantize("q.onnx", "avx2", &DATA);
    assert!(line(&measured).contains(" 1 of 2 layers can saturate"), "{measured}");
    assert!(measured.contains("\n1 of 2 int8 weights keep 8 bits"), "{measured}");
    // Nothing that could saturate: nothing to say.
    let stored = place.quantize("q.onnx", "int8_weights", &[]);
    assert!(!stored.contains("int8 exact"), "{stored}");
}

#[test]
fn the_order_of_samples_and_threads_change_nothing() {
    let place = Place::new("MatMul");
    place.data("other.npy", &[3, 5, 0, 4, 2, 1]);
    let bytes = |data: &str, threads: &str, recipe: &str| {
        place.quantize("q.onnx", recipe, &["--calibration", data, "--threads", threads]);
        fs::read(place.path("q.onnx")).unwrap()
    };
    for recipe in ["avx2", "avx2_static"] {
        let expected = bytes("data.npy", "1", recipe);
        assert!(bytes("other.npy", "2", recipe) == expected, "{recipe}");
    }
}

/// The gates of an LSTM multiply a state that nobody outside sees.
#[test]
fn what_is_not_simulated_keeps_seven_bits() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = |count: usize| {
        let list: Vec<String> = noise(3).take(count).map(|it| format!("{it:?}")).collect();
        list.join(", ")
    };
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>
         main (float[5,batch,8] x) => (float[5,1,batch,4] y)
         <float[1,16,8] w = {{{}}}, float[1,16,4] r = {{{}}}> {{
           y = LSTM <hidden_size: int = 4> (x, w, r)
         }}",
        numbers(128),
        numbers(64)
    );
    fs::write(folder.path().join("model.onnxtxt"), text).unwrap();
    let place = Place(folder);
    write_lstm_data(&place.path("data.npy"));
    let it = place.json("avx2", &DATA);
    let note = node(&it, "w")["note"].as_str().unwrap();
    assert!(note.starts_with("7 bits: the state that it multiplies"), "{note}");
    assert_eq!(it["int8"]["exact_on"][0], "x86-64");
}

/// One sample of `[5, 1, 8]`.
fn write_lstm_data(path: &Path) {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 1, 8), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(noise(4).take(40).flat_map(f32::to_le_bytes));
    fs::write(path, bytes).unwrap();
}
