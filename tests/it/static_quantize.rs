//! Static recipes on a language model, from outside.

use std::fs;

use crate::common::{
    arrays::{noise, npy, rows},
    at_least, fixture,
    outside::{Place, Run, run},
};
use onnxq_ir::releases::Release;
use serde_json::Value;

const RECIPE: &str = "avx512_vnni_static";
/// Tokens of a sample: short ones, as every way of every activation is measured.
const TOKENS: usize = 32;

fn model() -> String {
    fixture("model.onnx").to_str().unwrap().to_owned()
}

/// These samples of the fixture's calibration data, in this order.
fn samples(place: &Place, name: &str, order: &[usize]) -> String {
    let ids = fs::read(fixture("calibration_input_ids.npy")).unwrap();
    place.write(name, npy(&rows(&ids, order, TOKENS)))
}

fn quantize(recipe: &str, output: &str, more: &[&str]) -> Run {
    run(&[&["quantize", &model(), "-r", recipe, "-f", "-o", output], more].concat())
}

/// Whether this ONNX Runtime lacks the QuantizeLinear that a fused model has; then it was named.
fn too_old(run: &Run) -> bool {
    let old = !at_least(Release(1, 24));
    let told = format!("{}{}", run.error, run.out).contains("E802");
    assert_eq!(old, told, "{}", run.error);
    old
}

#[test]
fn a_language_model_is_static_and_near_the_original() {
    let place = Place::new();
    let output = place.path("q.onnx");
    let calibration = samples(&place, "a.npy", &[0, 1, 2, 3, 4, 5, 6, 7]);
    let validate = format!("--validate={}", fixture("eval_ids.npy").display());
    let data = ["--calibration", &calibration, &validate, "--samples", "4"];
    let it =
        quantize(RECIPE, &output, &[&data[..], &["--gate", "kl.mean<=0.01", "--json"]].concat());
    if too_old(&it) {
        return;
    }
    let json = it.json();
    assert_eq!(json["validate"]["gates"][0]["pass"], true, "{json}");
    let nodes = json["quantize"]["nodes"].as_array().unwrap();
    let is_static = |it: &&Value| it["activation"] == "static";
    assert!(nodes.iter().filter(is_static).count() >= 10, "{}", it.error);
    // Each node is quantized, part of a quantized region, or in float for a reason.
    for node in nodes {
        let is_chain = node["weight"] == "";
        let told = node["format"].is_string() || node["kept"].is_string() || is_chain;
        assert!(told, "{node}");
    }
    // The last model that was measured on the way is the one that was written.
    let tried = json["quantize"]["adapted"]["tried"].as_array().unwrap();
    assert!(tried.iter().any(|it| it["reached"] == true), "{tried:?}");
}

#[test]
fn order_threads_and_memory_change_no_byte() {
    let place = Place::new();
    let forwards = samples(&place, "a.npy", &[0, 1, 2, 3, 4, 5]);
    let shuffled = samples(&place, "b.npy", &[4, 2, 5, 0, 3, 1]);
    let written = |name: &str, calibration: &str, more: &[&str]| {
        let output = place.path(name);
        let it = quantize(RECIPE, &output, &[&["--calibration", calibration], more].concat());
        if too_old(&it) {
            return Vec::new();
        }
        assert_eq!(it.code, 0, "{}", it.error);
        fs::read(output).unwrap()
    };
    let expected = written("a.onnx", &forwards, &["--threads", "1"]);
    let other = written("b.onnx", &shuffled, &["--threads", "2"]);
    assert!(expected == other, "the order of samples or the number of threads changes the result");
    let small = written("c.onnx", &forwards, &["--memory", "8MiB"]);
    assert!(expected == small, "the memory changes the result");
}

#[test]
fn without_data_nothing_is_written() {
    for recipe in [RECIPE, "avx2_static", "arm64_static"] {
        let place = Place::new();
        let it = quantize(recipe, &place.path("q.onnx"), &["-q"]);
        assert_eq!((it.out.as_str(), it.code), ("", 2), "{}", it.error);
        assert!(it.error.starts_with("error[E610]: "), "{}", it.error);
        assert!(it.error.contains("--calibration"), "{}", it.error);
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn a_goal_out_of_reach_is_an_error_that_names_what_can_be_had() {
    let place = Place::new();
    let text = "onnxq: 1\nname: strict\nextends: avx512_vnni_static\nadapt:\n  candidates:\n    \
                - activation: {dtype: uint8, range: static, observer: min_max}\n    \
                - activation: {dtype: uint8, range: static, observer: mse}\n  \
                goal: {max_kl: 1e-9}\n";
    let recipe = place.write("strict.yaml", text);
    let calibration = samples(&place, "a.npy", &[0, 1]);
    let data = ["-q", "--calibration", &calibration];
    let it = quantize(&recipe, &place.path("q.onnx"), &data);
    if too_old(&it) {
        return;
    }
    assert_eq!((it.out.as_str(), it.code), ("", 1), "{}", it.error);
    assert!(it.error.contains("error[E617]: the goal is out of reach"), "{}", it.error);
    assert!(it.error.contains("KL ≤ 0.000000001"), "{}", it.error);
    assert!(it.error.contains("hint: add a more accurate candidate"), "{}", it.error);
    assert_eq!(place.files(), ["a.npy", "strict.yaml"]);
}

#[test]
fn a_dry_run_needs_no_data() {
    let place = Place::new();
    let it = quantize(RECIPE, &place.path("q.onnx"), &["--dry-run"]);
    assert_eq!(it.code, 0, "{}", it.error);
    assert_eq!(place.files(), [""; 0]);
}

/// What lies in a branch cannot be observed, so nothing is known of its ranges: it computes in float,
/// and its weight is small all the same.
#[test]
fn what_cannot_be_static_says_why() {
    let place = Place::new();
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[n,64] x) => (float[n,64] y) <
            float[64,64] w, float[64,64] v, float zero = {0}
        > {
            a = MatMul (x, w)
            largest = ReduceMax <keepdims = 0> (a)
            flag = Greater (largest, zero)
            y = If (flag) <
                then_branch = then () => (float[n,64] b) {
                    r = Relu (a)
                    b = MatMul (r, v)
                },
                else_branch = other () => (float[n,64] c) { c = Neg (a) }
            >
        }"#;
    let model = place.write("m.onnxtxt", text);
    let data = place.write("x.npy", npy(&noise(&[4, 64], 1)));
    let output = place.path("q.onnx");
    let args = ["quantize", &model, "-r", RECIPE, "-o", &output, "--calibration", &data, "--json"];
    let it = run(&args);
    let json = it.json();
    let rows = json["quantize"]["nodes"].as_array().unwrap();
    let row = |node: &str| rows.iter().find(|it| it["node"] == node).unwrap();
    assert_eq!(row("MatMul → a")["activation"], "static");
    let branch = row("MatMul → b");
    assert_eq!(branch["format"], "stored", "{branch}");
    let note = branch["note"].as_str().unwrap();
    assert!(note.contains("it computes in float: no range of `r` is known"), "{note}");
    assert_eq!(json["quantize"]["quantized_nodes"], 2);
}
