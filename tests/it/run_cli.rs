//! `onnxq run` from outside: one answer, a batch, what is refused.

use std::fs;

use serde_json::{Value, json};

use crate::common::{
    checkpoints, fixture,
    outside::{Place, run, run_on},
};

fn model() -> String {
    fixture("model_with_past.onnx").to_str().unwrap().to_owned()
}

const STORY: &str = "In the morning the old man";

#[test]
fn a_prompt_is_continued_wherever_it_comes_from() {
    let (model, tokens) = (model(), ["--max-tokens", "12"]);
    let told = run(&[&["run", &model, STORY], &tokens[..]].concat());
    assert_eq!(
        (&*told.out, told.code),
        (", and the best of the best of the b\n", 0),
        "{}",
        told.error
    );
    assert!(told.error.contains("prompt 9 tokens, ") && told.error.contains("answer 12 tokens"));
    let piped = run_on(&[&["run", &model, "-q"], &tokens[..]].concat(), &format!("{STORY}\n"));
    assert_eq!((&piped.out, &*piped.error, piped.code), (&told.out, "", 0));
    let object = run(&[&["run", &model, STORY, "--json"], &tokens[..]].concat()).json();
    assert_eq!(object["text"], told.out.trim_end());
    assert_eq!((&object["schema"], &object["finish"]), (&"onnxq.run/1".into(), &"length".into()));
    assert_eq!(object["usage"]["completion_tokens"], 12);
    let stopped = run(&["run", &model, STORY, "--stop", "best", "-q"]);
    assert_eq!(stopped.out, ", and the \n");
    let seeded =
        || run(&["run", &model, STORY, "--top-k", "9", "--seed", "7", "--max-tokens", "9"]);
    assert_eq!(seeded().out, seeded().out);
}

#[test]
fn a_batch_answers_each_line_in_order() {
    let place = Place::new();
    let long = "x ".repeat(2000);
    let lines = [
        json!({"prompt": STORY, "max_tokens": 12, "id": "a"}).to_string(),
        "{".to_owned(),
        String::new(),
        json!({"prompt": STORY, "max_token": 12}).to_string(),
        json!({"text": STORY}).to_string(),
        json!({"prompt": long}).to_string(),
        json!({"messages": [{"role": "user", "content": "hi"}]}).to_string(),
        json!({"prompt": STORY, "temperature": -1}).to_string(),
        json!({"prompt": STORY, "max_tokens": 0, "echo": true, "logprobs": 1}).to_string(),
    ];
    let file = place.write("lines.jsonl", lines.join("\n"));
    let done = run(&["run", &model(), "--jsonl", &file]);
    assert_eq!(done.code, 2, "{}", done.error);
    assert!(done.error.contains("6 of 8 lines failed"), "{}", done.error);
    let results: Vec<Value> =
        done.out.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let codes = [0, 628, 628, 628, 625, 626, 628, 0];
    let numbers = [1, 2, 4, 5, 6, 7, 8, 9];
    assert_eq!(results.len(), codes.len());
    for ((result, code), number) in results.iter().zip(codes).zip(numbers) {
        let expected = if code == 0 { Value::Null } else { format!("E{code}").into() };
        assert_eq!((&result["error"]["code"], &result["line"]), (&expected, &number.into()));
    }
    assert_eq!(results[0]["text"], ", and the best of the best of the b");
    assert_eq!(results[0]["id"], "a");
    let unknown = results[2]["error"]["message"].as_str().unwrap();
    assert!(unknown.contains("`max_token`"), "{unknown}");
    assert_eq!(results[7]["text"], STORY);
    assert_eq!(results[7]["logprobs"].as_array().unwrap().len(), 9);
    // A stream is read as a file is.
    let piped = run_on(&["run", &model(), "--jsonl", "-"], &lines[0]);
    assert_eq!((piped.out.lines().count(), piped.code), (1, 0));
}

#[test]
fn flags_without_an_effect_are_errors() {
    for flags in [
        &["--system", "be kind"][..],
        &["--raw"],
        &["--seed", "1"],
        &["--temperature", "0", "--top-p", "0.5"],
        &["--labels", &fixture("tokenizer.json").to_string_lossy()],
    ] {
        let refused = run(&[&["run", &model(), STORY], flags].concat());
        assert_eq!((refused.code, &*refused.out), (2, ""), "{flags:?}");
        assert!(refused.error.contains("error[E712]"), "{}", refused.error);
    }
    let range = run(&["run", &model(), STORY, "--top-p", "7"]);
    assert!(range.error.contains("error[E628]: top_p is 7"), "{}", range.error);
}

#[test]
fn what_a_folder_lacks_is_said() {
    let place = Place::new();
    for name in ["onnx/model.onnx", "onnx/model_q4.onnx"] {
        fs::create_dir_all(place.path("several/onnx")).unwrap();
        fs::copy(fixture("model.onnx"), place.path(&format!("several/{name}"))).unwrap();
    }
    let several = run(&["run", &place.path("several"), "x"]);
    assert!(several.error.contains("error[E624]") && several.error.contains("model_q4.onnx"));
    let alone = run(&["run", &place.path("several/onnx/model.onnx"), "x"]);
    assert_eq!(alone.code, 2);
    assert!(alone.error.contains("there is no tokenizer.json"), "{}", alone.error);
    assert!(alone.error.contains("pass --tokenizer"), "{}", alone.error);
    let checkpoint = run(&["run", checkpoints().join("llama").to_str().unwrap(), "x"]);
    assert!(checkpoint.error.contains("`onnxq import "), "{}", checkpoint.error);
    let image = run(&["run", &model(), "x", "--task", "embed"]);
    assert!(image.error.contains("error[E627]: the model does not embed texts"), "{}", image.error);
}

#[test]
fn caches_and_logits_may_be_float16() {
    let place = Place::new();
    let half = place.path("model.onnx");
    assert_eq!(run(&["convert", &model(), "--to", "float16", "-o", &half]).code, 0);
    let io = run(&["inspect", "--io", &half]).out;
    assert!(io.contains("float16[batch_size,sequence_length,1024]"), "{io}");
    fs::copy(fixture("tokenizer.json"), place.path("tokenizer.json")).unwrap();
    let told = run(&["run", &half, STORY, "--max-tokens", "12"]);
    assert_eq!(told.out, ", and the best of the best of the b\n", "{}", told.error);
    assert!(told.error.contains("2048 are assumed"), "{}", told.error);
}

/// One buffer for past and present says what a cache that grows says, by the importer's own folders.
#[test]
fn layouts_answer_alike() {
    let place = Place::new();
    let checkpoint = checkpoints().join("qwen3");
    let line = json!({"prompt": "\"#".repeat(40), "max_tokens": 24, "logprobs": 0}).to_string();
    let answers = ["plain", "genai", "hf"].map(|layout| {
        let folder = place.path(layout);
        let import = ["import", checkpoint.to_str().unwrap(), "-o", &folder, "--layout", layout];
        assert_eq!(run(&import).code, 0);
        fs::copy(fixture("tokenizer.json"), format!("{folder}/tokenizer.json")).unwrap();
        let done = run_on(&["run", &folder, "--jsonl", "-"], &line);
        assert_eq!(done.code, 0, "{}{}", done.out, done.error);
        let result: Value = serde_json::from_str(&done.out).unwrap();
        let tokens = result["logprobs"].as_array().unwrap();
        tokens.iter().map(|it| it["id"].clone()).collect::<Vec<Value>>()
    });
    assert_eq!(answers[0].len(), 24);
    assert!(answers[1] == answers[0] && answers[2] == answers[0], "{answers:?}");
}
