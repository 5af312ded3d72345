//! What calibration data decides about activations of dynamic recipes, and recipes that ask wrongly.

use std::fs;

use crate::common::{
    arrays::{npy, rows},
    fixture,
    outside::{Place, run},
    saturates,
};
use serde_json::Value;

/// What a run of `avx512_vnni` decided.
fn adapted(place: &Place, more: &[&str]) -> Value {
    let ids = fs::read(fixture("calibration_input_ids.npy")).unwrap();
    let calibration = place.write("ids.npy", npy(&rows(&ids, &[0, 1, 2, 3], 32)));
    let (model, output) = (fixture("model.onnx"), place.path("q.onnx"));
    let args = ["quantize", model.to_str().unwrap(), "-r", "avx512_vnni", "-f", "-o", &output];
    let data = ["--calibration", &calibration, "--json"];
    run(&[&args[..], &data, more].concat()).json()["quantize"]["adapted"].clone()
}

fn choices(it: &Value) -> Vec<&str> {
    let list = it["activations"].as_array().unwrap();
    list.iter().map(|it| it["choice"].as_str().unwrap()).collect()
}

#[test]
fn data_chooses_rows_within_the_budget() {
    let place = Place::new();
    for budget in ["0", "0.05", "0.2"] {
        let set = format!("adapt.budget={budget}");
        let it = adapted(&place, &["--set", &set]);
        let (extra, limit) = (it["extra_time"].as_f64().unwrap(), it["budget"].as_f64().unwrap());
        assert_eq!(limit, budget.parse::<f64>().unwrap());
        assert!(extra <= limit + 1e-6, "{extra} is more than {limit}");
        let rows = choices(&it).iter().filter(|it| **it == "row").count();
        assert!((rows == 0) == (budget == "0"), "{rows} rows for {budget}");
    }
}

#[test]
fn a_limit_for_errors_goes_before_the_budget() {
    let place = Place::new();
    // What saturates would be a reason of its own for the slower way.
    let range = if saturates() { "reduced" } else { "narrow" };
    let range = format!("quantize.0.weight.range={range}");
    let sets = ["--set", "adapt.budget=0", "--set", "adapt.max_error=0", "--set", &range];
    let it = adapted(&place, &sets);
    assert!(choices(&it).iter().all(|it| *it == "row"), "{it}");
    assert!(it["extra_time"].as_f64().unwrap() > 0.0);
}

/// The solvers of the products that `avx512_vnni` makes of the fixture.
fn solvers(more: &[&str]) -> Vec<String> {
    let place = Place::new();
    let (model, output) = (fixture("model.onnx"), place.path("q.onnx"));
    let args = ["quantize", model.to_str().unwrap(), "-r", "avx512_vnni", "-o", &output, "--json"];
    let json = run(&[&args[..], more].concat()).json();
    let rows = json["quantize"]["nodes"].as_array().unwrap().clone();
    let products = rows.iter().filter(|it| it["op"] == "MatMul" && it["format"].is_string());
    products.map(|it| it["solver"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn data_rounds_weights_too() {
    let place = Place::new();
    let ids = fs::read(fixture("calibration_input_ids.npy")).unwrap();
    let data = place.write("ids.npy", npy(&rows(&ids, &[0, 1], 32)));
    let (with, without) = (solvers(&["--calibration", &data]), solvers(&[]));
    assert_eq!((with.len(), without.len()), (29, 29));
    assert!(with.iter().all(|it| it == "gptq"), "{with:?}");
    assert!(without.iter().all(|it| it == "mse"), "{without:?}");
}

#[test]
fn without_data_the_recipe_decides() {
    let place = Place::new();
    let (model, output) = (fixture("model.onnx"), place.path("q.onnx"));
    let args = ["quantize", model.to_str().unwrap(), "-o", &output, "--json"];
    assert!(run(&args).json()["quantize"]["adapted"].is_null());
}

/// How a recipe of one's own is refused.
fn refused(adapt: &str) -> String {
    let place = Place::new();
    let path = place.write("my.yaml", format!("onnxq: 1\nname: my\nextends: avx2\n{adapt}\n"));
    let it = run(&["recipe", "check", &path]);
    assert_eq!((it.out.as_str(), it.code), ("", 2), "{}", it.error);
    it.error.replace(&path, "my.yaml")
}

#[test]
fn a_choice_of_nothing_is_refused() {
    insta::assert_snapshot!(refused("adapt:\n  candidates: []"), @"error[E703]: my.yaml:5:15: there is nothing to choose from");
    insta::assert_snapshot!(refused("adapt: {budget: 0.1}"), @"error[E703]: my.yaml:4:9: `candidates` is missing");
}

#[test]
fn an_unknown_word_is_refused_with_a_guess() {
    let candidate = "adapt:\n  candidates:\n    - activation: none\n      format: [qdqq]";
    insta::assert_snapshot!(refused(candidate), @"error[E703]: my.yaml:7:15: unknown format `qdqq`");
    let candidate = "adapt:\n  candidates:\n    - {activaton: none}";
    insta::assert_snapshot!(refused(candidate), @r"
    error[E701]: my.yaml:6:8: unknown key `activaton`

    hint: did you mean `activation`?
    ");
    let observer = "adapt:\n  candidates:\n    - activation: {range: static, observer: entropie}";
    insta::assert_snapshot!(refused(observer), @r"
    error[E703]: my.yaml:6:45: unknown observer `entropie`

    hint: did you mean `entropy`?
    ");
}

#[test]
fn a_limit_below_zero_is_refused() {
    let candidates = "  candidates:\n    - activation: none";
    for limit in ["budget: -0.1", "max_error: -1", "goal: {max_kl: -1}"] {
        let error = refused(&format!("adapt:\n  {limit}\n{candidates}"));
        assert!(error.contains("my.yaml:5:"), "{error}");
        assert!(error.contains("must not be negative"), "{error}");
    }
    insta::assert_snapshot!(refused(&format!("adapt:\n{candidates}\n  budget: -0.1")), @"error[E703]: my.yaml:7:11: must not be negative");
}
