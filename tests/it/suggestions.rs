//! What is suggested is done by the flag that stands beside, and helps as much as was said.

use crate::common::{
    fixture,
    outside::{Place, run},
};
use serde_json::Value;

/// The model by a recipe whose activations have one range, and where its error enters.
fn attributed(place: &Place, flags: &[String]) -> Value {
    let [model, data] = ["model.onnx", "eval_ids.npy"].map(|it| fixture(it).display().to_string());
    let output = place.path("q.onnx");
    let plain = ["quantize", &model, "-r", "avx512_vnni", "-f", "-o", &output];
    let one_range = ["transforms=[]", "quantize.2.activation.granularity=tensor"];
    let sets = one_range.iter().flat_map(|it| ["--set", it]);
    let flags = flags.iter().map(|it| &**it);
    let ran = run(&plain.into_iter().chain(sets).chain(flags).collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "{}", ran.error);
    let args = ["validate", &model, &output, "--data", &data, "--samples", "2", "--layers"];
    run(&[&args[..], &["--no-latency", "--json"]].concat()).json()["attribution"].clone()
}

#[test]
fn a_range_per_row_is_offered_where_the_activation_is_to_blame_and_helps() {
    let place = Place::new();
    let found = attributed(&place, &[]);
    let list = found["suggestions"].as_array().unwrap();
    let row = list.iter().find(|it| it["keep_in"] == "a range per row");
    let row = row.unwrap_or_else(|| panic!("{list:#?}"));
    assert!(row["bytes"] == 0 && row["text"].as_str().unwrap().contains("+0 "), "{row}");
    let kept = |it: &&Value| it["node"] == row["node"] && it["keep_in"] == "float";
    assert!(list.iter().any(|it| kept(&it)), "beside it: keep it in float");
    let (flag, value) = row["flag"].as_str().unwrap().split_once(' ').unwrap();
    let value = value.trim_matches('\'').to_owned();
    let followed = attributed(&place, &[flag.to_owned(), value]);
    let number = |it: &Value| it.as_f64().unwrap();
    let (before, said) = (number(&row["loss_before"]), number(&row["loss_after"]));
    let after = number(&followed["loss"]);
    assert!((after - said).abs() < 0.1 * (before - said), "{before} → {said}, and {after}");
}
