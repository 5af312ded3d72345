//! `package` from outside, and which form of its models is loaded.

use std::{collections::BTreeSet, fs, path::Path};

use crate::common::{
    fixture,
    outside::{Place, run},
    runtime,
};
use onnxq_ir::{onnx, tensor::Tensor};
use onnxq_run::engine::{
    Session, SessionOptions,
    package::{self, Loaded},
};
use serde_json::Value;

/// The fixture, packaged.
fn packaged(place: &Place) -> String {
    let folder = place.path("packed");
    let model = fixture("model.onnx");
    let done = run(&["package", model.to_str().unwrap(), "-o", &folder]);
    assert_eq!(done.code, 0, "{}", done.error);
    folder
}

/// A model as the worker loads it.
fn load(model: &Path, options: &SessionOptions) -> Loaded<Box<dyn Session>> {
    let runtime = runtime();
    package::open(model, &runtime, options, |path, options| runtime.open(path, options)).unwrap()
}

fn open(folder: &str) -> Loaded<Box<dyn Session>> {
    load(&Path::new(folder).join("model.onnx"), &SessionOptions::default())
}

/// What a model says to a few tokens.
fn outputs(loaded: &mut Loaded<Box<dyn Session>>) -> Vec<Vec<u8>> {
    let ids = Tensor::from_i64(&[1, 5], [1, 2, 3, 4, 5]);
    let mask = Tensor::from_i64(&[1, 5], [1; 5]);
    let inputs = [("input_ids", &ids), ("attention_mask", &mask)];
    let known: Vec<String> = loaded.session.inputs().iter().map(|it| it.name.clone()).collect();
    let given: Vec<(&str, &Tensor)> =
        inputs.into_iter().filter(|it| known.iter().any(|name| name == it.0)).collect();
    let outputs = loaded.session.run(&given).unwrap();
    outputs.into_iter().map(|(_, it)| it.bytes().unwrap().to_vec()).collect()
}

/// Why the packed form was not loaded; the plain one answers as ever.
fn reason(folder: &str, expected: &[Vec<u8>]) -> String {
    let mut loaded = open(folder);
    assert!(!loaded.is_prepacked, "the packed form was loaded");
    assert_eq!(outputs(&mut loaded), expected);
    loaded.not_used.unwrap().to_string()
}

/// Changes the manifest, and puts it back afterwards.
fn with_manifest(folder: &str, change: impl Fn(&mut Value), then: impl Fn()) {
    let path = format!("{folder}/package.json");
    let text = fs::read(&path).unwrap();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    change(&mut manifest);
    fs::write(&path, manifest.to_string()).unwrap();
    then();
    fs::write(&path, text).unwrap();
}

#[test]
fn a_package_answers_bit_for_bit_as_its_plain_model() {
    let place = Place::new();
    let folder = place.path("packed");
    let model = fixture("model.onnx");
    let done = run(&["package", model.to_str().unwrap(), "-o", &folder, "--json"]);
    let row = &done.json()["models"][0];
    assert_eq!(
        (&row["file"], &row["compared"]),
        (&"model.onnx".into(), &"2 inputs made up".into())
    );
    assert!(row["weights"]["packed"].as_u64().unwrap() > 10, "{row}");
    let files: BTreeSet<String> = serde_json::from_value(done.json()["files"].clone()).unwrap();
    let ours = ["package.json", "prepacked/model.onnx", "prepacked/model.onnx.data"];
    let plain = ["config.json", "model.onnx", "tokenizer.json"];
    let expected: BTreeSet<String> =
        [&ours[..], &plain].concat().into_iter().map(str::to_owned).collect();
    assert_eq!(files, expected);
    assert_eq!(fs::read(&model).unwrap(), fs::read(format!("{folder}/model.onnx")).unwrap());
    let mut packed = open(&folder);
    assert!(packed.is_prepacked, "{:?}", packed.not_used);
    let mut plain = load(&model, &SessionOptions::default());
    assert!(!plain.is_prepacked && plain.not_used.is_none());
    assert_eq!(outputs(&mut packed), outputs(&mut plain));
}

#[test]
fn what_does_not_fit_is_said_and_the_plain_model_is_loaded() {
    let place = Place::new();
    let folder = packaged(&place);
    let expected = outputs(&mut open(&folder));
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 5] = [
        (|it| it["onnxruntime"] = "1.0.0".into(), "packed by ONNX Runtime 1.0.0, and this one is"),
        (|it| it["machine"]["features"] = vec!["new"].into(), "packed for a CPU with new"),
        (|it| it["schema"] = "onnxq.package/9".into(), "of the format `onnxq.package/9`"),
        (|it| it["models"] = 1.into(), "is no manifest of a package"),
        (
            |it| it["models"][0]["prepacked"][0]["path"] = "../model.onnx".into(),
            "names `../model.onnx`, which is no place in the package",
        ),
    ];
    for (change, text) in cases {
        with_manifest(&folder, change, || {
            let reason = reason(&folder, &expected);
            assert!(reason.contains(text), "{reason}");
        });
    }
    let lean = SessionOptions { lean: true, ..SessionOptions::default() };
    let model = Path::new(&folder).join("model.onnx");
    let loaded = load(&model, &lean);
    assert!(!loaded.is_prepacked && loaded.not_used.is_some());
    assert!(open(&folder).is_prepacked);
}

#[test]
fn files_that_changed_are_told_before_they_are_mapped() {
    let place = Place::new();
    let folder = packaged(&place);
    let expected = outputs(&mut open(&folder));
    let data = format!("{folder}/prepacked/model.onnx.data");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[..bytes.len() / 2]).unwrap();
    let text = reason(&folder, &expected);
    assert!(text.contains("`prepacked/model.onnx.data` has"), "{text}");
    // A packed weight that samples do not meet: the library compares it with what it would pack.
    let mut changed = bytes.clone();
    let at = packed_weight(&format!("{folder}/prepacked/model.onnx"));
    changed[at..at + 64].fill(0x55);
    fs::write(&data, changed).unwrap();
    with_manifest(
        &folder,
        |it| sign(it, &folder),
        || {
            let text = reason(&folder, &expected);
            assert!(text.contains("refused"), "{text}");
        },
    );
    fs::remove_file(&data).unwrap();
    assert!(reason(&folder, &expected).ends_with("`prepacked/model.onnx.data` is missing"));
    fs::write(&data, &bytes).unwrap();
    assert!(open(&folder).is_prepacked);
    // Another model of the same size.
    let model = format!("{folder}/model.onnx");
    let mut plain = fs::read(&model).unwrap();
    let middle = plain.len() / 2;
    plain[middle..middle + (64 << 10)].fill(0);
    fs::write(&model, plain).unwrap();
    let text = open(&folder).not_used.unwrap().to_string();
    assert_eq!(text, "`model.onnx` holds something else");
    let checked = run(&["package", &folder, "--check"]);
    assert_eq!(checked.code, 3, "{}", checked.error);
    assert!(checked.error.contains("E631") && checked.out.contains("holds something else"));
    // The plain model is what counts.
    assert_eq!(run(&["package", &folder, "--remake"]).code, 0);
    assert!(open(&folder).is_prepacked);
    assert_eq!(run(&["package", &folder, "--check"]).code, 0);
}

/// Where a weight that is packed begins in the file of data.
fn packed_weight(graph: &str) -> usize {
    let text = String::from_utf8_lossy(&fs::read(graph).unwrap()).into_owned();
    let (_, form) = text.split_once("MatMul+").unwrap();
    let (_, numbers) = form.split_once('|').unwrap();
    numbers.split(';').next().unwrap().parse().unwrap()
}

/// States of the packed data what it is now.
fn sign(manifest: &mut Value, folder: &str) {
    let file = package::FileFacts::of(Path::new(folder), "prepacked/model.onnx.data").unwrap();
    manifest["models"][0]["prepacked"][1] = serde_json::to_value(file).unwrap();
}

#[test]
fn a_repository_keeps_its_form_and_what_lies_in_it() {
    let place = Place::new();
    let from = place.path("repository");
    fs::create_dir_all(format!("{from}/onnx")).unwrap();
    fs::copy(fixture("model.onnx"), format!("{from}/onnx/model.onnx")).unwrap();
    fs::copy(fixture("tokenizer.json"), format!("{from}/tokenizer.json")).unwrap();
    fs::write(format!("{from}/notes.txt"), "mine").unwrap();
    let folder = place.path("packed");
    let done = run(&["package", &from, "-o", &folder]);
    assert_eq!(done.code, 0, "{}", done.error);
    assert!(
        done.error.contains("not copied") && done.error.contains("`notes.txt`"),
        "{}",
        done.error
    );
    let model = Path::new(&folder).join("onnx/model.onnx");
    let loaded = load(&model, &SessionOptions::default());
    assert!(loaded.is_prepacked && loaded.path.ends_with("prepacked/onnx/model.onnx"));
    fs::write(format!("{folder}/notes.txt"), "mine").unwrap();
    assert_eq!(run(&["package", &folder, "--remake"]).code, 0);
    assert_eq!(fs::read_to_string(format!("{folder}/notes.txt")).unwrap(), "mine");
    let taken = run(&["package", &from, "-o", &folder]);
    assert_eq!((taken.code, taken.error.contains("E903")), (2, true), "{}", taken.error);
    let onto = run(&["package", &from, "-o", &from, "--force"]);
    assert_eq!((onto.code, onto.error.contains("E904")), (2, true), "{}", onto.error);
    assert_eq!(place.files(), ["packed", "repository"]);
}

/// Writes a model of text.
fn model(place: &Place, text: &str) -> String {
    let text = format!("<ir_version: 10, opset_import: [\"\": 21]> {text}");
    let model = onnx::from_text(&text, &onnx::OpenOptions::default()).unwrap();
    place.write("m.onnx", onnx::to_bytes(&model).unwrap())
}

#[test]
fn a_model_without_anything_to_pack_is_told() {
    let place = Place::new();
    let text = "g (float[n] x) => (float[n] y) { y = Relu(x) }";
    let done = run(&["package", &model(&place, text), "-o", &place.path("packed")]);
    assert_eq!(done.code, 0, "{}", done.error);
    assert!(done.error.contains("stored no packed weight of `m.onnx`"), "{}", done.error);
}

#[test]
fn what_cannot_be_packaged_leaves_nothing() {
    let place = Place::new();
    let failed = |model: &str, code: &str| {
        let folder = place.path("packed");
        let done = run(&["package", model, "-o", &folder]);
        assert!(done.code != 0 && done.error.contains(code), "{code}: {}", done.error);
        assert!(!Path::new(&folder).exists());
    };
    // Runs on 1,009 numbers only, which is not what is tried.
    let odd = "g (float[n] x) => (float[a, b] y) <int64[2] s = {1009, -1}> { y = Reshape(x, s) }";
    failed(&model(&place, odd), "E633");
    failed(&fixture("tokenizer.json").to_string_lossy(), "E632");
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    failed(&empty, "E632");
    failed(&place.path("nowhere"), "E905");
    let none = run(&["package", &empty, "--remake"]);
    assert_eq!((none.code, none.error.contains("E631")), (3, true), "{}", none.error);
    assert_eq!(place.files(), ["empty", "m.onnx"]);
}
