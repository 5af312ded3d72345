//! `import` from outside, and every command that takes a model on the folder of a checkpoint.

use std::{collections::BTreeSet, fs, path::Path};

use crate::common::{
    checkpoints,
    outside::{Place, run},
};
use serde_json::Value;

fn checkpoint(name: &str) -> String {
    checkpoints().join(name).to_str().unwrap().to_owned()
}

fn names(folder: &str) -> BTreeSet<String> {
    let mut list = BTreeSet::new();
    let mut folders = vec![(Path::new(folder).to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            match entry.path().is_dir() {
                true => folders.push((entry.path(), format!("{name}/"))),
                false => drop(list.insert(name)),
            }
        }
    }
    list
}

fn set(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

#[test]
fn several_recipes_lie_side_by_side() {
    let place = Place::new();
    let folder = place.path("out");
    let args = ["import", &checkpoint("llama"), "-o", &folder, "-r", "float", "-r", "int4"];
    let done = run(&[&args[..], &["--json"]].concat());
    assert_eq!(done.code, 0, "{}", done.error);
    let expected = ["config.json", "model_float.onnx", "model_int4.onnx"];
    let files = names(&folder);
    assert!(set(&expected).is_subset(&files), "{files:?}");
    let json: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&json["schema"], &json["model_type"]), (&"onnxq.import/1".into(), &"llama".into()));
    let listed = json["files"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), files);
    let models = json["models"].as_array().unwrap();
    assert_eq!(models[0]["quantized"], Value::Null);
    assert!(models[1]["quantized"]["quantized_nodes"].as_u64().unwrap() > 10);
    // Files are named by where they are now, not by where they were made.
    assert_eq!(models[1]["quantized"]["output"], format!("{folder}/model_int4.onnx"));
    assert!(!done.error.contains(".onnxq-") && done.error.contains(&folder), "{}", done.error);
    let text = run(&["inspect", "--text", &format!("{folder}/model_float.onnx")]).out;
    assert!(text.contains("onnxq.min_onnxruntime") && text.contains("onnxq import llama"));
    for file in ["model_float.onnx", "model_int4.onnx"] {
        assert_eq!(run(&["check", &format!("{folder}/{file}")]).code, 0, "{file}");
    }
}

#[test]
fn a_folder_for_genai_says_what_its_graph_needs() {
    let place = Place::new();
    let folder = place.path("out");
    let done = run(&["import", &checkpoint("gemma3"), "-o", &folder, "--layout", "genai"]);
    assert_eq!(done.code, 0, "{}", done.error);
    let text = fs::read(format!("{folder}/genai_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    let decoder = &config["model"]["decoder"];
    assert_eq!(decoder["num_hidden_layers"], 4);
    assert_eq!(config["model"]["eos_token_id"], serde_json::json!([1, 106]));
    // The windows are in the graph: the key makes genai slide the cache too.
    assert_eq!(decoder["sliding_window"], Value::Null);
    let io = run(&["inspect", "--io", &format!("{folder}/model.onnx")]).out;
    assert!(!io.contains("position_ids"), "{io}");
    let ops = run(&["inspect", "--ops", &format!("{folder}/model.onnx")]).out;
    assert!(ops.contains("GroupQueryAttention") && !ops.contains(" Attention"), "{ops}");
}

#[test]
fn a_repository_has_the_names_that_clients_look_for() {
    let place = Place::new();
    let folder = place.path("out");
    let recipes = ["-r", "float", "-r", "int4", "-r", "avx512_vnni"];
    let args = ["import", &checkpoint("llama"), "-o", &folder, "--layout", "hf"];
    assert_eq!(run(&[&args[..], &recipes].concat()).code, 0);
    let expected = [
        "README.md",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_q4.onnx",
        "onnx/model_quantized.onnx",
    ];
    let files = names(&folder);
    assert!(set(&expected).is_subset(&files), "{files:?}");
    let card = fs::read_to_string(format!("{folder}/README.md")).unwrap();
    assert!(card.contains("| `onnx/model_q4.onnx` | int4 |"), "{card}");
}

#[test]
fn two_recipes_for_one_file_are_refused() {
    let place = Place::new();
    let folder = place.path("out");
    let args = ["import", &checkpoint("llama"), "-o", &folder, "--layout", "hf"];
    let done = run(&[&args[..], &["-r", "int4", "-r", "int4_size"]].concat());
    assert_eq!(done.code, 4, "{}", done.error);
    assert!(done.error.contains("E126") && done.error.contains("model_q4.onnx"), "{}", done.error);
    let done = run(&["import", &checkpoint("bert-ner"), "-o", &folder, "--layout", "genai"]);
    assert!(done.code == 4 && done.error.contains("`bert` is none"), "{}", done.error);
    assert_eq!(names(&place.path("")), BTreeSet::new());
}

#[test]
fn there_is_all_of_a_folder_or_nothing() {
    let place = Place::new();
    let folder = place.path("out");
    // Whatever fails on the way: the second recipe needs data.
    let args = ["import", &checkpoint("llama"), "-o", &folder];
    let done = run(&[&args[..], &["-r", "float", "-r", "int4_quality"]].concat());
    assert!(done.code != 0 && done.error.contains("E610"), "{}", done.error);
    assert_eq!(names(&place.path("")), BTreeSet::new());
    assert_eq!(run(&args).code, 0);
    let before = names(&folder);
    let done = run(&args);
    assert!(done.code != 0 && done.error.contains("E903"), "{}", done.error);
    fs::write(format!("{folder}/mine.txt"), "").unwrap();
    assert_eq!(run(&[&args[..], &["-f"]].concat()).code, 0);
    assert_eq!(names(&folder), before);
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1);
}

#[test]
fn a_folder_is_a_model_for_every_command() {
    let place = Place::new();
    let (folder, output) = (checkpoint("qwen3"), place.path("q.onnx"));
    let done = run(&["quantize", &folder, "-r", "int8_weights", "-o", &output]);
    assert_eq!(done.code, 0, "{}", done.error);
    assert!(run(&["plan", &folder, "-r", "int4"]).out.contains("model.layers.0.mlp.down_proj"));
    assert!(run(&["inspect", &folder]).out.contains("past_key_values.0.key"));
    assert_eq!(run(&["check", &folder]).code, 0);
    let ids = place.path("ids.npy");
    npy(&ids, 4, 24);
    let gate = ["--gate", "kl.mean<=0.01"];
    let done = run(&[&["validate", &folder, &output, "--data", &ids][..], &gate].concat());
    assert_eq!(done.code, 0, "{}{}", done.out, done.error);
    assert_eq!(run(&["compare", &folder, &output, "--data", &ids]).code, 0);
    let quality = place.path("quality.onnx");
    let args = ["quantize", &folder, "-r", "int4_quality", "--calibration", &ids, "-o", &quality];
    let done = run(&args);
    assert_eq!(done.code, 0, "{}", done.error);
    let done = run(&[
        "quantize",
        &folder,
        "-r",
        "int4",
        "--max-size",
        "150kB",
        "--calibration",
        &ids,
        "-o",
        &output,
        "-f",
    ]);
    assert_eq!(done.code, 0, "{}", done.error);
    assert!(fs::metadata(&output).unwrap().len() <= 150_000);
}

/// Token ids `[rows, columns]` as numpy writes them.
fn npy(path: &str, rows: usize, columns: usize) {
    let header =
        format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    let ids = (0..rows * columns).map(|it| (it * 37 % 251) as i64);
    bytes.extend(ids.flat_map(i64::to_le_bytes));
    fs::write(path, bytes).unwrap();
}
