//! Gates and baselines cannot be switched off by accident, and what was decided is told everywhere.

use std::{fs, path::Path};

use serde_json::Value;

use crate::common::{
    arrays::{noise, npy},
    fixture,
    outside::{Place, run},
};
use onnxq_quant::recipe::SHIPPED;

fn path(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

/// No result holds it.
const IMPOSSIBLE: &str = "size_ratio<=0.000001";

#[test]
fn a_gate_is_judged_or_the_command_fails() {
    let (model, data) = (path("model.onnx"), path("eval_ids.npy"));
    let place = Place::new();
    let (old, report) = (place.path("nope.json"), place.path("report"));
    let judges: [&[&str]; 2] = [&["--gate", IMPOSSIBLE], &["--baseline", &old]];
    let validate = format!("--validate={data}");
    let flags: [&[&str]; 8] = [
        &["--data", &data, "--samples", "1"],
        &["--validate"],
        &[&validate, "--samples", "1"],
        &["--dry-run"],
        &["--no-latency"],
        &["--json"],
        &["--report", &report],
        &["--allow-noop", "--exclude", "*"],
    ];
    for judge in judges {
        for (at, first) in flags.iter().enumerate() {
            for second in &flags[at..] {
                let output = place.path("q.onnx");
                let mut args = vec!["quantize", &model, "-r", "int8_weights", "-o", &output];
                args.extend(judge.iter().chain(*first));
                if first != second {
                    args.extend(*second);
                }
                let ran = run(&args);
                assert_ne!(ran.code, 0, "{args:?}: {}{}", ran.out, ran.error);
                assert!(!Path::new(&output).exists(), "{args:?} left a model");
            }
        }
        let ran = run(
            &[&["validate", &model, &model, "--data", &data, "--samples", "1"], judge].concat()
        );
        assert_ne!(ran.code, 0, "{judge:?}: {}{}", ran.out, ran.error);
    }
}

#[test]
fn gates_of_a_recipe_want_data_too() {
    let place = Place::new();
    let recipe = place.path("gated.yaml");
    let text = "onnxq: 1\nname: gated\nextends: int8_weights\ngates:\n  - {metric: kl, max: 10}\n";
    fs::write(&recipe, text).unwrap();
    let (model, output) = (path("model.onnx"), place.path("q.onnx"));
    let args = ["quantize", &model, "-r", &recipe, "-o", &output];
    let ran = run(&args);
    assert_eq!(ran.code, 2, "{}", ran.error);
    assert!(ran.error.contains("the recipe's gates needs a comparison"), "{}", ran.error);
    let data = path("eval_ids.npy");
    let ran = run(&[&args[..], &["--data", &data, "--samples", "2", "--no-latency"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.error);
}

#[test]
fn an_older_model_stays_where_a_new_one_misses_a_gate() {
    let place = Place::new();
    let (model, data, output) = (path("model.onnx"), path("eval_ids.npy"), place.path("q.onnx"));
    fs::write(&output, "older").unwrap();
    let args = ["quantize", &model, "-r", "int8_weights", "-o", &output, "-f", "--data", &data];
    let rest = ["--samples", "1", "--no-latency", "--gate"];
    let ran = run(&[&args[..], &rest, &[IMPOSSIBLE]].concat());
    assert_eq!(ran.code, 1, "{}", ran.error);
    assert_eq!(fs::read_to_string(&output).unwrap(), "older");
    assert_eq!(place.files(), ["q.onnx", "q.onnx.rejected"]);
    let ran = run(&[&args[..], &rest, &["kl<=10"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert_ne!(fs::read(&output).unwrap(), b"older");
}

/// Every cell of the tables of decisions, and the reasons for float.
fn told(report: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut texts = Vec::new();
    for decision in list(&report["decisions"]) {
        texts.extend(list(&decision["before"]).iter().chain(&list(&decision["after"])).map(text));
        texts.extend(list(&decision["rows"]).iter().flat_map(list).map(|cell| text(&cell)));
    }
    texts.extend(list(&report["kept"]).iter().map(|kept| text(&kept["reason"])));
    texts.retain(|text| !text.is_empty());
    texts
}

#[test]
fn the_report_and_the_page_say_what_the_terminal_says_of_every_recipe() {
    let (model, data) = (path("model.onnx"), path("eval_ids.npy"));
    let calibration = path("calibration_input_ids.npy");
    // What keeps integers has nothing to do for a float model.
    for (recipe, _) in SHIPPED.iter().filter(|it| it.0 != "as_stored") {
        let place = Place::new();
        let file = if recipe.starts_with("gguf") { "q.gguf" } else { "q.onnx" };
        let (output, folder) = (place.path(file), place.path("report"));
        let args = ["quantize", &model, "-r", recipe, "-o", &output, "--data", &data];
        let rest = ["--samples", "1", "--no-latency", "--report", &folder];
        let ran = run(&[&args[..], &rest, &["--calibration", &calibration]].concat());
        assert_eq!(ran.code, 0, "{}: {}", recipe, ran.error);
        let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap();
        let report: Value = serde_json::from_str(&read("report.json")).unwrap();
        let texts = told(&report);
        assert!(!texts.is_empty(), "{}", recipe);
        // What stands for signs in HTML and Markdown, and what a line has no room for, is left out.
        let plain = |text: &String| text.chars().all(|c| c.is_alphanumeric() || " .,".contains(c));
        for text in texts.iter().filter(|text| plain(text)) {
            let sentence = text.trim_end_matches('.');
            for (name, shown) in [
                ("terminal", ran.out.clone()),
                ("report.md", read("report.md")),
                ("index.html", read("index.html")),
            ] {
                let shown = shown.to_lowercase();
                let found = shown.contains(&sentence.to_lowercase());
                assert!(found, "{}: `{text}` is missing in {name}\n{shown}", recipe);
            }
        }
        // A GGUF file says the same in its header, which is not read back.
        if file == "q.gguf" {
            continue;
        }
        // The file alone knows the reasons, how activations were chosen, and what solvers achieved.
        let args = ["validate", &model, &output, "--data", &data, "--samples", "1", "--json"];
        let later = run(&[&args[..], &["--no-latency"]].concat());
        let later: Value = serde_json::from_str(&later.out).unwrap();
        assert_eq!(later["kept"], report["kept"], "{}", recipe);
        assert_eq!(later["decisions"], report["decisions"], "{}", recipe);
    }
}

#[test]
fn conversions_of_a_cache_can_be_proved() {
    let place = Place::new();
    let (model, past, data) =
        (path("model.onnx"), path("model_with_past.onnx"), path("eval_ids.npy"));
    let calibration = path("calibration_input_ids.npy");
    let (cached, narrow) = (place.path("cached.onnx"), place.path("narrow.onnx"));
    let int8 = ["--kv-cache", "int8", "--calibration", &calibration];
    for (original, output, flags) in
        [(&model, &cached, &["--add-kv-cache"][..]), (&past, &narrow, &int8[..])]
    {
        let ran = run(&[&["convert", original, "-o", output], flags].concat());
        assert_eq!(ran.code, 0, "{}", ran.error);
        let args = ["validate", original, output, "--data", &data, "--samples", "2"];
        let ran = run(&[&args[..], &["--no-latency", "--gate", "logits:kl<=0.01"]].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    }
}

#[test]
fn what_calibrate_learns_of_every_recipe_quantize_takes() {
    let (model, calibration) = (path("model.onnx"), path("calibration_input_ids.npy"));
    for recipe in ["int4_quality", "int4_size", "avx512_vnni", "int8_weights"] {
        let place = Place::new();
        let (stats, output) = (place.path("c.stats"), place.path("q.onnx"));
        let args = ["calibrate", &model, "-r", recipe, "--data", &calibration, "-o", &stats];
        let ran = run(&args);
        assert_eq!(ran.code, 0, "{recipe}: {}", ran.error);
        let args = ["quantize", &model, "-r", recipe, "--stats", &stats, "-o", &output];
        let ran = run(&[&args[..], &["--calibration", &calibration]].concat());
        assert_eq!(ran.code, 0, "{recipe}: {}", ran.error);
    }
}

#[test]
fn one_sample_is_too_few_to_trust() {
    let (model, data) = (path("model.onnx"), path("eval_ids.npy"));
    let args = ["validate", &model, &model, "--data", &data, "--samples", "1", "--no-latency"];
    let ran = run(&args);
    assert!(ran.out.contains("warning [W205]: compared on 1 sample"), "{}", ran.out);
}

/// ONNX Runtime reads no text; it gets the model that the text means.
#[test]
fn models_in_text_are_judged() {
    let place = Place::new();
    let text = "<ir_version: 8, opset_import: [\"\" : 17]> main (float[N,4] x) => (float[N,4] y)
        <float[4,4] w = {1, 2, 3, 4, -1, -2, 3, 4, 5, 6, 7, 8, 4, 3, 2, 1}> { y = MatMul (x, w) }";
    let model = place.write("model.onnxtxt", text);
    let data = place.write("x.npy", npy(&noise(&[8, 4], 3)));
    let (output, again) = (place.path("q.onnx"), place.path("again.onnx"));
    let judge = ["--data", &*data, "--no-latency", "--gate", "sqnr_db>=20"];
    let made = ["quantize", &model, "-r", "int8_weights", "-o", &output];
    let ran = run(&[&made[..], &judge].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    let ran = run(&[&["validate", &*model, &*output], &judge[..]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.error);
    let ran = run(&["compare", &model, &output, "--data", &data, "--layers"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let ran = run(&["convert", &model, "--strip", "--allow-noop", "-o", &again]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let ran = run(&["validate", &again, &model, "--data", &data, "--no-latency"]);
    assert!(ran.out.contains("yes, bit for bit"), "{}", ran.out);
}
