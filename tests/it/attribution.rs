//! Where the error enters: a weight that is damaged on purpose is found, and nothing else is.

use std::{fs, path::Path};

use crate::common::{
    arrays::{noise, npy},
    fixture,
    outside::{Place, run},
    quantize_file,
};
use onnxq_ir::{ctx::Ctx, diag::Diagnostic, onnx};
use onnxq_pipeline::attribution::{self, Attribute};
use onnxq_quant::recipe::Gate;
use onnxq_report::document::{Attribution, LayerError};
use onnxq_run::data::{DataOptions, Dataset};

/// The fixture by a recipe, made once per test.
fn quantized(place: &Place, recipe: &str) -> String {
    let output = place.path(&format!("{recipe}.onnx"));
    quantize_file(&fixture("model.onnx"), recipe, Path::new(&output));
    output
}

/// Changes the bytes of the constant `input` of the node that is called like `name`.
fn damage(model: &str, to: &str, name: &str, input: usize, change: impl Fn(&mut [u8])) {
    let loaded = onnx::open(Path::new(model), &Default::default()).unwrap();
    let m = loaded.model;
    let constant = |node| m.constant(m.node(node).inputs.get(input).copied().flatten()?).ok();
    let named = m.nodes().into_iter().filter(|it| {
        m.node(*it).outputs.iter().any(|it| m.value(*it).name.contains(name))
            || m.node_label(*it).contains(name)
    });
    let tensor = named.filter_map(constant).max_by_key(|it| it.nbytes()).expect("a constant");
    let old = tensor.bytes().unwrap();
    let mut bytes = fs::read(model).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - old.len()).filter(|at| bytes[*at..].starts_with(&old)).collect();
    let [at] = places[..] else { panic!("{} places", places.len()) };
    change(&mut bytes[at..at + old.len()]);
    fs::write(to, bytes).unwrap();
}

/// Scales, or any floats, times `factor`.
fn times(factor: f32) -> impl Fn(&mut [u8]) {
    move |bytes: &mut [u8]| {
        for it in bytes.as_chunks_mut::<4>().0 {
            *it = (f32::from_le_bytes(*it) * factor).to_le_bytes();
        }
    }
}

fn swap_nibbles(bytes: &mut [u8]) {
    let eighth = bytes.len() / 4;
    bytes[..eighth].iter_mut().for_each(|it| *it = it.rotate_left(4));
}

fn with<'a>(reference: &'a Path, candidate: &'a str, data: &'a Path) -> Attribute<'a> {
    let options = DataOptions { samples: Some(2), ..DataOptions::default() };
    Attribute {
        reference,
        candidate: Path::new(candidate),
        data: Dataset::of_path(data, options),
        open: Default::default(),
        memory: 1 << 30,
        threads: 2,
        runtime: crate::common::runtime(),
    }
}

fn attribute(candidate: &str) -> Attribution {
    let (model, data) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    attribution::attribute(&with(&model, candidate, &data), &Ctx::silent()).unwrap()
}

fn bisect(candidate: &str, limit: Option<&str>) -> onnxq_report::document::Bisection {
    let (model, data) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let limit: Option<Gate> = limit.map(|it| it.parse().unwrap());
    attribution::bisect(&with(&model, candidate, &data), limit.as_ref(), &Ctx::silent()).unwrap()
}

/// The damaged node is the worst, and the one that breaks the limit.
fn is_found(candidate: &str, node: &str) {
    let it = attribute(candidate);
    let worst = it.layers.iter().find(|it| it.rank == 1).unwrap();
    assert!(worst.node.contains(node) || worst.value.contains(node), "{node}: {worst:?}");
    assert!(
        worst.loss_without.unwrap() < it.loss / 2.0,
        "{node}: {} of {}",
        worst.loss_without.unwrap(),
        it.loss
    );
    let first = &it.suggestions[0];
    assert!(first.node == worst.node && first.loss_after < it.loss / 2.0, "{first:?}");
    let found = bisect(candidate, None);
    assert_eq!(
        (found.node.as_ref(), &found.value),
        (Some(&worst.node), &Some(worst.value.clone())),
        "{found:?}"
    );
    assert!(found.runs <= 12 && found.runs == found.probes.len(), "{found:?}");
    assert!(found.before < found.after, "{found:?}");
}

#[test]
fn a_damaged_weight_of_4_bits_is_the_worst_and_the_first_that_breaks_a_limit() {
    let place = Place::new();
    // A recipe whose scales are floats, with nothing before them.
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/formats/blocks.yaml");
    let (model, broken) = (place.path("model.onnx"), place.path("broken.onnx"));
    quantize_file(&fixture("model.onnx"), recipe.to_str().unwrap(), Path::new(&model));
    damage(&model, &broken, "layers.0/mlp/down_proj/MatMul", 2, times(4.0));
    is_found(&broken, "layers.0/mlp/down_proj/MatMul");
    damage(&model, &broken, "layers.2/mlp/gate_proj/MatMul", 1, swap_nibbles);
    is_found(&broken, "layers.2/mlp/gate_proj/MatMul");
    damage(&model, &broken, "layers.3/self_attn/o_proj/MatMul", 2, times(-1.0));
    is_found(&broken, "layers.3/self_attn/o_proj/MatMul");
}

#[test]
fn a_damaged_weight_of_8_bits_is_found_too() {
    let place = Place::new();
    let (model, broken) = (quantized(&place, "avx512_vnni"), place.path("broken.onnx"));
    for node in ["layers.1/mlp/up_proj/MatMul", "layers.3/self_attn/v_proj/MatMul"] {
        damage(&model, &broken, node, 1, |it| it.reverse());
        is_found(&broken, node);
    }
}

#[test]
fn figures_of_a_sound_model_fit_together() {
    let place = Place::new();
    let it = attribute(&quantized(&place, "int4"));
    assert_eq!((it.samples, it.measure.as_str()), (2, "kl"));
    let quantized: Vec<&LayerError> = it.layers.iter().filter(|it| it.quantized).collect();
    assert_eq!(quantized.len(), 30, "every node with a weight");
    let better =
        |it: &&&LayerError| it.local_sqnr_db.unwrap() + 0.5 >= it.accumulated_sqnr_db.unwrap();
    assert!(quantized.iter().filter(better).count() >= 28, "{quantized:?}");
    assert!(quantized.iter().all(|it| it.local_sqnr_db.unwrap() > 15.0), "{quantized:?}");
    let measured: Vec<f64> = it.layers.iter().filter_map(|it| it.loss_without).collect();
    assert!(
        measured.len() >= 12 && measured.iter().all(|one| *one < 1.5 * it.loss),
        "{measured:?}"
    );
    let mut ranks: Vec<usize> = it.layers.iter().map(|it| it.rank).collect();
    ranks.sort_unstable();
    assert!(ranks.iter().copied().eq(1..=it.layers.len()));
    for suggestion in &it.suggestions {
        assert!(suggestion.bytes > 0 && suggestion.loss_after < it.loss, "{suggestion:?}");
        assert!(suggestion.text.starts_with("keep `…/"), "{suggestion:?}");
    }
}

#[test]
fn nothing_depends_on_memory_or_threads() {
    let place = Place::new();
    let candidate = quantized(&place, "int4");
    let (model, data) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let job = with(&model, &candidate, &data);
    let all = attribution::attribute(&job, &Ctx::silent()).unwrap();
    let job = Attribute { memory: 1_000_000, threads: 1, ..job };
    assert_eq!(attribution::attribute(&job, &Ctx::silent()).unwrap(), all);
}

#[test]
fn a_model_compared_with_itself_has_no_error() {
    let model = fixture("model.onnx");
    let it = attribute(model.to_str().unwrap());
    assert_eq!((it.loss, it.unmatched), (0.0, 0));
    assert!(it.suggestions.is_empty() && it.layers.len() > 100);
    let exact = |it: &LayerError| it.local_sqnr_db.is_none() && it.accumulated_sqnr_db.is_none();
    assert!(it.layers.iter().all(exact));
    let found = bisect(model.to_str().unwrap(), Some("kl.mean<=0"));
    assert_eq!((found.node, found.runs, found.after), (None, 1, Some(0.0)));
}

#[test]
fn a_limit_that_is_kept_names_no_node() {
    let place = Place::new();
    let found = bisect(&quantized(&place, "int4"), Some("kl.mean<=10"));
    assert_eq!((found.node, found.limit.as_str(), found.runs), (None, "kl.mean<=10", 1));
    assert!(found.probes[0].keeps && found.after.unwrap() < 10.0);
}

/// Two models as text, and data for their input `x`, `[n, 4]`.
fn texts(place: &Place, reference: &str, candidate: &str) -> [String; 3] {
    let reference = place.write("reference.onnxtxt", reference);
    let candidate = place.write("candidate.onnxtxt", candidate);
    [reference, candidate, place.write("x.npy", npy(&noise(&[6, 4], 5)))]
}

const SCALED: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,4] x) => (float[n,2] y) <float[4] g = {1, 2, 3, 4}, float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
    a = Mul (x, g)
    b = MatMul (a, w)
    y = Relu (b)
}"#;

#[test]
fn a_value_that_means_something_else_is_no_error() {
    let place = Place::new();
    // What `a` lost, the rows of `w` have.
    let moved = SCALED.replace("{1, 2, 3, 4},", "{2, 1, 6, 1},");
    let moved = moved.replace("{1, 2, 3, 4, 5, 6, 7, 8}", "{0.5, 1, 6, 8, 2.5, 3, 28, 32}");
    let [reference, candidate, data] = texts(&place, SCALED, &moved);
    let it =
        run(&["compare", &reference, &candidate, "--data", &data, "--layers", "--json"]).json();
    let layers = it["attribution"]["layers"].as_array().unwrap();
    let values: Vec<&str> = layers.iter().map(|it| it["value"].as_str().unwrap()).collect();
    assert_eq!((values, it["attribution"]["unmatched"].as_u64()), (vec!["b", "y"], Some(2)));
    assert!(layers.iter().all(|it| it["local_sqnr_db"].as_f64().is_none_or(|it| it > 100.0)));
}

#[test]
fn a_damaged_weight_of_a_model_of_numbers_is_found_by_its_noise() {
    let place = Place::new();
    let broken = SCALED.replace("7, 8}", "-7, 8}");
    let [reference, candidate, data] = texts(&place, SCALED, &broken);
    let args =
        ["compare", &reference, &candidate, "--data", &data, "--layers", "--bisect", "--json"];
    let it = run(&args).json();
    assert_eq!(it["schema"], "onnxq.compare/1");
    assert_eq!(it["attribution"]["measure"], "noise_to_signal");
    assert_eq!(
        (&it["bisection"]["value"], &it["bisection"]["op"]),
        (&"b".into(), &"MatMul".into())
    );
    let layers = it["attribution"]["layers"].as_array().unwrap();
    let worst = layers.iter().find(|it| it["rank"] == 1).unwrap();
    assert_eq!((&worst["value"], &worst["loss_without"]), (&"b".into(), &0.0.into()));
}

#[test]
fn models_without_common_names_are_said_to_have_none() {
    let place = Place::new();
    let other = SCALED
        .replace("y", "out")
        .replace("a = ", "p = ")
        .replace("(a,", "(p,")
        .replace("b = ", "q = ")
        .replace("(b)", "(q)")
        .replace("out", "y");
    let other = other.replace("y = Relu (q)", "r = Relu (q)\n    y = Identity (r)");
    let renamed =
        other.replace("(float[n,2] y)", "(float[n,2] z)").replace("y = Identity", "z = Identity");
    let [reference, candidate, data] = texts(&place, SCALED, &renamed);
    let it = run(&["compare", &reference, &candidate, "--data", &data, "--bisect"]);
    assert_eq!(it.code, 3, "{}", it.error);
    assert!(
        it.error.starts_with("error[E620]: the two models share no inner value"),
        "{}",
        it.error
    );
    let [reference, candidate, data] = texts(&place, SCALED, &other);
    let it =
        run(&["compare", &reference, &candidate, "--data", &data, "--layers", "--json"]).json();
    let layers = it["attribution"]["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &it["attribution"]["unmatched"]), (1, &5.into()), "the output only");
}

#[test]
fn values_inside_control_flow_are_counted() {
    let place = Place::new();
    let branch = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,4] x) => (float[n,4] y) <bool c = {1}> {
    a = Neg (x)
    y = If (c) <
        then_branch = yes () => (float[n,4] t) { t = Abs (a) },
        else_branch = no () => (float[n,4] e) { e = Exp (a) }
    >
}"#;
    let broken = branch.replace("Abs", "Neg");
    let [reference, candidate, data] = texts(&place, branch, &broken);
    let args =
        ["compare", &reference, &candidate, "--data", &data, "--layers", "--bisect", "--json"];
    let it = run(&args).json();
    assert_eq!(it["attribution"]["unmatched"], 4);
    assert_eq!((&it["bisection"]["value"], &it["bisection"]["op"]), (&"y".into(), &"If".into()));
}

#[test]
fn tables_say_the_limit_the_node_and_the_runs() {
    let place = Place::new();
    let broken = SCALED.replace("7, 8}", "-7, 8}");
    let [reference, candidate, data] = texts(&place, SCALED, &broken);
    let both = ["compare", &reference, &candidate, "-q", "--data", &data];
    let it = run(&[&both[..], &["--layers", "--bisect", "--limit", "sqnr_db>=30"]].concat());
    assert_eq!(it.code, 0, "{}", it.error);
    for part in [
        "noise to signal without",
        "sqnr_db>=30 is broken from here on: MatMul → b",
        "exact → 2.692 with it, found in 4 runs",
    ] {
        assert!(it.out.contains(part), "{part}: {}", it.out);
    }
    let it = run(&[&both[..], &["--bisect", "--limit", "size_ratio<=1"]].concat());
    assert_eq!(it.code, 2);
    assert!(
        it.error.starts_with("error[E621]: `size_ratio<=1` does not hold even"),
        "{}",
        it.error
    );
    let it = run(&[&both[..], &["--limit", "kl<=1"]].concat());
    assert_eq!(it.code, 2, "a limit is for a bisection");
}

#[test]
fn without_a_question_the_outputs_are_compared() {
    let (model, data) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let (model, data) = (model.to_str().unwrap(), data.to_str().unwrap());
    let it = run(&["compare", model, model, "-q", "--data", data, "--samples", "1"]);
    assert!(it.code == 0 && it.out.contains("yes, bit for bit"), "{}{}", it.out, it.error);
}

#[test]
fn what_cannot_be_bisected_says_what_to_do_instead() {
    for it in [attribution::Unbisectable::Unshared, attribution::Unbisectable::Unkept("x".into())] {
        assert!(it.hint().is_some());
    }
}
