//! A GGUF file needs no tokenizer beside it: calibrated, judged and asked by texts, it answers what the folder
//! answers that it was made of.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    common::{
        fixture,
        outside::{Place, run},
    },
    gguf::wide,
};

/// A folder of the fixtures' tokenizers beside random weights.
fn checkpoint(style: &str) -> tempfile::TempDir {
    let folder = wide(512);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizers").join(style);
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// Texts as they are, and as lines of JSON.
fn texts(place: &Place) -> (String, String) {
    let all = fs::read_to_string(fixture("calibration.txt")).unwrap();
    let lines: Vec<&str> = all.lines().filter(|line| line.len() > 40).take(24).collect();
    let json: Vec<String> = lines.iter().map(|line| json!({"text": line}).to_string()).collect();
    (place.write("texts.txt", lines.join("\n")), place.write("texts.jsonl", json.join("\n")))
}

/// What of a model depends on the tokens of texts: its quantized weights, what they lose, and an answer.
fn answers(place: &Place, model: &str, name: &str) -> Value {
    let (text, lines) = texts(place);
    let quantized = place.path(&format!("{name}.onnx"));
    let calibrated = ["--calibration", &lines, "--set", "calibration.samples=4"];
    let args = [&["quantize", model, "-r", "int4_quality", "-o", &quantized], &calibrated[..]];
    let done = run(&args.concat());
    assert_eq!(done.code, 0, "{}", done.error);
    let judged = ["validate", model, &quantized, "--data", &text, "--samples", "4", "--json"];
    let report = run(&judged).json();
    let metadata = &report["models"]["candidate"]["metadata"];
    let folder = place.path(name);
    let imported = run(&["import", model, "-o", &folder]);
    assert_eq!(imported.code, 0, "{}", imported.error);
    let prompt = "The old man <s> and\n  the sea, 1952";
    let answer = run(&["run", &folder, prompt, "--max-tokens", "9", "--json"]).json();
    json!({
        "calibration": metadata["onnxq.calibration_sha256"],
        "logits": report["outputs"]["logits"],
        "text": answer["text"],
        "prompt": answer["usage"]["prompt_tokens"],
    })
}

#[test]
fn a_file_answers_as_the_folder_it_was_made_of() {
    for style in ["gemma", "llama"] {
        let (place, folder) = (Place::new(), checkpoint(style));
        let (folder, file) = (folder.path().to_str().unwrap(), place.path("model.gguf"));
        let made = run(&["convert", folder, "--to", "gguf", "-o", &file]);
        assert_eq!(made.code, 0, "{}", made.error);
        let expected = answers(&place, folder, "of-folder");
        assert!(expected["calibration"].is_string() && expected["logits"].is_object());
        assert_eq!(answers(&place, &file, "of-file"), expected, "{style}");
        // Without tokenizer.json, SentencePiece's own file says the same.
        fs::remove_file(Path::new(folder).join("tokenizer.json")).unwrap();
        let pieces = place.path("pieces.gguf");
        let made = run(&["convert", folder, "--to", "gguf", "-o", &pieces]);
        assert_eq!(made.code, 0, "{}", made.error);
        assert_eq!(answers(&place, &pieces, "of-pieces"), expected, "{style}");
    }
}

#[test]
fn bytes_go_through_files_too() {
    let place = Place::new();
    let (model, file) = (fixture("model.onnx"), place.path("model.gguf"));
    let (model, (text, _)) = (model.to_str().unwrap(), texts(&place));
    let made = run(&["convert", model, "--to", "gguf", "-o", &file]);
    assert_eq!(made.code, 0, "{}", made.error);
    let judged = ["validate", model, &file, "--data", &text, "--samples", "4", "--json"];
    let own = run(&[&judged[..], &["--tokenizer", &file]].concat()).json();
    let logits = &own["outputs"]["logits"];
    assert!(logits["kl"]["mean"].as_f64().unwrap() < 1e-9, "{logits}");
    let tokenizer = fixture("tokenizer.json");
    let named = ["--tokenizer", tokenizer.to_str().unwrap()];
    let other = run(&[&judged[..], &named[..]].concat()).json();
    assert_eq!(&other["outputs"]["logits"], logits);
}

#[test]
fn a_tokenizer_that_no_file_can_say_is_named() {
    let (place, folder) = (Place::new(), checkpoint("llama"));
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["normalizer"] = json!({"type": "Lowercase"});
    fs::write(&path, tokenizer.to_string()).unwrap();
    let (folder, file) = (folder.path().to_str().unwrap(), place.path("model.gguf"));
    let convert = ["convert", folder, "--to", "gguf", "-o", &file];
    let refused = run(&convert);
    assert_eq!(refused.code, 4, "{}", refused.error);
    assert!(
        refused.error.contains("error[E122]: tokenizer.json: `normalizer` is"),
        "{}",
        refused.error
    );
    assert!(
        refused.error.contains("take tokenizer.json and tokenizer.model out"),
        "{}",
        refused.error
    );
    // What the hint says works.
    for name in ["tokenizer.json", "tokenizer.model"] {
        fs::remove_file(Path::new(folder).join(name)).unwrap();
    }
    assert_eq!(run(&convert).code, 0);
}
