//! GGUF files from outside: written of checkpoints, of ONNX models and of other GGUF files, and held against
//! what they were made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{checkpoints, fixture};
use assert_cmd::Command;
use onnxq_formats::gguf::File;
use serde_json::{Value, json};
use tempfile::TempDir;

/// stdout, stderr, exit code.
fn onnxq(args: &[&str]) -> (String, String, i32) {
    let mut command = Command::cargo_bin("onnxq").unwrap();
    let output = command.args(args).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

fn done(args: &[&str]) -> String {
    let (out, error, code) = onnxq(args);
    assert_eq!(code, 0, "{args:?}: {error}");
    out
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read(path: &Path) -> File {
    File::parse(&fs::read(path).unwrap().into(), "written.gguf").unwrap()
}

/// The type of a tensor.
fn kind(file: &File, name: &str) -> &'static str {
    file.info(name).unwrap_or_else(|| panic!("no tensor {name}")).kind.name()
}

fn values(file: &File, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().to_f32().unwrap()
}

/// A Llama of one layer and so many tokens whose rows are whole superblocks, with numbers that are the same everywhere.
pub(crate) fn wide(words: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": words, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let layer = |it: &str| format!("model.layers.0.{it}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![words, 256]),
        ("lm_head.weight".to_owned(), vec![words, 256]),
        ("model.norm.weight".to_owned(), vec![256]),
        (layer("input_layernorm"), vec![256]),
        (layer("post_attention_layernorm"), vec![256]),
        (layer("self_attn.q_proj"), vec![256, 256]),
        (layer("self_attn.k_proj"), vec![128, 256]),
        (layer("self_attn.v_proj"), vec![128, 256]),
        (layer("self_attn.o_proj"), vec![256, 256]),
        (layer("mlp.gate_proj"), vec![512, 256]),
        (layer("mlp.up_proj"), vec![512, 256]),
        (layer("mlp.down_proj"), vec![256, 512]),
    ];
    let (mut header, mut data, mut seed) = (serde_json::Map::new(), Vec::new(), 1u64);
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let unit = (seed >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let value = if shape.len() == 1 { 1.0 + unit / 10.0 } else { unit / 4.0 };
            data.extend(value.to_le_bytes());
        }
        let place = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, place);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    folder
}

#[test]
fn a_model_becomes_a_file_of_ggmls_types_that_passes_its_gates() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("q.gguf");
    let (model, ids) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let validate = format!("--validate={}", text(&ids));
    let out = done(&[
        "quantize",
        text(&model),
        "-r",
        "gguf_q4_0",
        "-o",
        text(&output),
        &validate,
        "--samples",
        "4",
        "--gate",
        "kl.mean<=0.1",
    ]);
    assert!(out.contains("tensors for llama.cpp: 9 × F32, 28 × Q4_0, 2 × Q8_0"), "{out}");
    assert!(out.contains("PASS"), "{out}");
    let file = read(&output);
    assert_eq!(kind(&file, "token_embd.weight"), "Q8_0");
    assert_eq!(kind(&file, "output.weight"), "Q8_0");
    assert_eq!(kind(&file, "blk.3.ffn_down.weight"), "Q4_0");
    assert_eq!(kind(&file, "blk.0.attn_norm.weight"), "F32");
    assert_eq!(file.value("general.architecture").and_then(|it| it.text()), Some("llama"));
    assert_eq!(file.value("onnxq.recipe").and_then(|it| it.text()), Some("gguf_q4_0"));
    // What solvers achieved is known when all is written, and stands in the header nevertheless.
    let decisions = file.value("onnxq.decisions").and_then(|it| it.text()).unwrap();
    assert!(decisions.contains("mse"), "{decisions}");
}

#[test]
fn superblocks_are_solved_alike_for_any_number_of_threads() {
    let (folder, wide) = (tempfile::tempdir().unwrap(), wide(96));
    let float = folder.path().join("float.gguf");
    done(&["convert", text(wide.path()), "--to", "gguf", "-o", text(&float)]);
    let float = read(&float);
    let files: Vec<PathBuf> = ["1", "2"].map(|it| folder.path().join(format!("{it}.gguf"))).into();
    for (threads, path) in ["1", "2"].into_iter().zip(&files) {
        let args = ["-r", "gguf_q4_k", "-o", text(path), "--threads", threads];
        done(&[&["quantize", text(wide.path())], &args[..]].concat());
    }
    assert_eq!(fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
    let file = read(&files[0]);
    // Of uniform values of a range of 1: at most so much squared error.
    for (name, expected, most) in [
        ("blk.0.attn_q.weight", "Q4_K", 3e-4),
        ("blk.0.attn_k.weight", "Q4_K", 3e-4),
        ("blk.0.attn_v.weight", "Q6_K", 2e-5),
        ("blk.0.ffn_down.weight", "Q6_K", 2e-5),
        ("output.weight", "Q8_0", 2e-6),
    ] {
        assert_eq!(kind(&file, name), expected);
        let (own, exact) = (values(&file, name), values(&float, name));
        let error: f32 = own.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b) * 16.0).sum();
        let mean = error / own.len() as f32;
        assert!(mean < most, "{name}: {mean}");
    }
}

#[test]
fn a_file_made_of_a_file_says_the_same() {
    let (folder, wide) = (tempfile::tempdir().unwrap(), wide(96));
    let [first, second] = ["a.gguf", "b.gguf"].map(|it| folder.path().join(it));
    done(&["convert", text(wide.path()), "--to", "gguf", "--type", "q8_0", "-o", text(&first)]);
    done(&["convert", text(&first), "--to", "gguf", "--type", "F32", "-o", text(&second)]);
    let (first, second) = (read(&first), read(&second));
    for (name, info) in first.tensors() {
        assert_eq!(second.info(name).unwrap().shape, info.shape, "{name}");
        assert_eq!(values(&first, name), values(&second, name), "{name}");
    }
    let keys = |it: &File| -> Vec<String> {
        let all = it.metadata().map(|it| it.0.to_owned());
        all.filter(|it| it.starts_with("llama.") || it.starts_with("tokenizer.")).collect()
    };
    assert_eq!(keys(&first), keys(&second));
}

/// What has blocks already keeps them, where nothing else is asked for.
#[test]
fn a_quantized_file_keeps_its_blocks() {
    let (folder, wide) = (tempfile::tempdir().unwrap(), wide(96));
    let names = ["a.gguf", "b.gguf", "c.gguf", "d.gguf"];
    let [first, same, again, other] = names.map(|it| folder.path().join(it));
    done(&["quantize", text(wide.path()), "-r", "gguf_q4_k", "-o", text(&first)]);
    done(&["convert", text(&first), "--to", "gguf", "-o", text(&same)]);
    done(&["convert", text(&first), "--to", "gguf", "--type", "q8_0", "-o", text(&again)]);
    let skip = "quantize=[{ops: [MatMul], names: ['*.o_proj'], weight: {dtype: q5_0}, \
                activation: none, format: [gguf]}]";
    let args = ["quantize", text(&first), "-r", "gguf_q4_0", "--set", skip, "-o", text(&other)];
    done(&args);
    let [first, same, again, other] = [first, same, again, other].map(|it| read(&it));
    let bytes = |file: &File, name: &str| file.info(name).unwrap().bytes.clone();
    for (name, info) in first.tensors() {
        assert_eq!(kind(&same, name), info.kind.name(), "{name}");
        assert_eq!(bytes(&same, name), info.bytes, "{name}");
    }
    assert_eq!(kind(&again, "blk.0.ffn_down.weight"), "Q8_0");
    assert_eq!(bytes(&again, "output.weight"), bytes(&first, "output.weight"));
    assert_eq!(kind(&other, "blk.0.attn_output.weight"), "Q5_0");
    for name in ["blk.0.attn_q.weight", "output.weight"] {
        assert_eq!(bytes(&other, name), bytes(&first, name), "{name}");
    }
}

#[test]
fn a_goal_mixes_types() {
    let folder = tempfile::tempdir().unwrap();
    let (model, ids) = (fixture("model.onnx"), fixture("calibration_input_ids.npy"));
    let output = folder.path().join("q.gguf");
    let args = ["quantize", text(&model), "-r", "gguf_quality", "-o", text(&output)];
    let data = ["--calibration", text(&ids), "--set", "calibration={samples: 2, sequential: true}"];
    let goal = ["--max-size", "700kB", "--json"];
    let out: Value = serde_json::from_str(&done(&[&args[..], &data, &goal].concat())).unwrap();
    let size = fs::metadata(&output).unwrap().len();
    assert!((600_000..=700_000).contains(&size), "{size}");
    let outcome = &out["quantize"];
    assert_eq!(outcome["after"]["bytes"], size);
    let types = outcome["types"].as_object().unwrap();
    assert!(types.len() > 2, "{types:?}");
    let chosen =
        outcome["mixed"]["table"].as_array().unwrap().iter().find(|it| it["chosen"] == true);
    assert_eq!(chosen.unwrap()["bytes"], size);
}

#[test]
fn what_cannot_be_a_file_of_llama_cpp_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("q.gguf");
    let refused = |args: &[&str]| {
        let (_, error, code) = onnxq(args);
        assert!(code != 0 && !place.exists(), "{args:?}: {error}");
        error
    };
    let (llama, bert) = (checkpoints().join("llama"), checkpoints().join("minilm"));
    let (llama, bert, out) = (text(&llama), text(&bert), text(&place));
    let error = refused(&["convert", bert, "--to", "gguf", "-o", out]);
    assert!(error.contains("error[E122]: there are no GGUF files of `bert`"), "{error}");
    let error = refused(&["convert", llama, "--to", "gguf", "--fuse", "-o", out]);
    assert!(error.contains("--fuse"), "{error}");
    let error = refused(&["convert", llama, "--to", "gguf"]);
    assert!(error.contains("error[E906]"), "{error}");
    let error = refused(&["convert", llama, "--to", "qdq", "--type", "q8_0", "-o", out]);
    assert!(error.contains("only --to gguf has types of ggml"), "{error}");
    let error = refused(&["quantize", llama, "-r", "gguf_q8_0", "-o", "q.onnx"]);
    assert!(error.contains("error[E905]") && error.contains("q.gguf"), "{error}");
    let error = refused(&["quantize", llama, "-r", "int4", "-o", out]);
    assert!(error.contains("error[E905]"), "{error}");
    let set = "transforms=[rotate]";
    let error = refused(&["quantize", llama, "-r", "gguf_q8_0", "-o", out, "--set", set]);
    assert!(error.contains("`transforms` does not go with format `gguf`"), "{error}");
    let set = "quantize.0.weight.symmetric=false";
    let error = refused(&["quantize", llama, "-r", "gguf_q8_0", "-o", out, "--set", set]);
    assert!(error.contains("a type of ggml says it itself"), "{error}");
    let set = "quantize.0.weight.dtype=q4_k";
    let onnx = folder.path().join("q.onnx");
    let error = refused(&["quantize", llama, "-r", "int4", "-o", text(&onnx), "--set", set]);
    assert!(error.contains("a type of ggml says it itself"), "{error}");
    let set = "quantize=[{ops: [MatMul], weight: {dtype: q4_k}, activation: none, format: [qdq]}]";
    let error = refused(&["quantize", llama, "-r", "int4", "-o", text(&onnx), "--set", set]);
    assert!(error.contains("types of ggml are for GGUF files"), "{error}");
}

#[test]
fn gpt2_is_the_same_from_a_folder_from_onnx_and_back() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let folder = checkpoints().join("gpt2-prefix");
    let [direct, onnx, rounded, solved] =
        ["direct", "onnx", "rounded", "solved"].map(|name| path(&format!("{name}.gguf")));
    done(&["convert", text(&folder), "--to", "gguf", "-o", text(&direct)]);
    done(&["import", text(&folder), "-o", text(&path("imported"))]);
    let model = path("imported").join("model.onnx");
    done(&["convert", text(&model), "--to", "gguf", "-o", text(&onnx)]);
    let file = read(&direct);
    for (name, info) in file.tensors() {
        let other = read(&onnx);
        assert_eq!(other.info(name).unwrap().shape, info.shape, "{name}");
        assert_eq!(values(&file, name), values(&other, name), "{name}");
    }
    assert_eq!(file.info("blk.0.attn_qkv.weight").unwrap().shape, [192, 64]);
    assert!(file.info("output.weight").is_none(), "the head is tied");
    // The converter of llama.cpp keeps learnt places in float32, a recipe asks for less.
    let args = ["--to", "gguf", "--type", "q8_0", "-o", text(&rounded)];
    done(&[&["convert", text(&folder)], &args[..]].concat());
    done(&["quantize", text(&direct), "-r", "gguf_q8_0", "-o", text(&solved)]);
    for (path, expected) in [(&rounded, "F32"), (&solved, "Q8_0")] {
        assert_eq!(kind(&read(path), "position_embd.weight"), expected);
        assert_eq!(kind(&read(path), "blk.1.ffn_down.weight"), "Q8_0");
    }
    done(&["import", text(&solved), "-o", text(&path("back"))]);
    let config = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(path(name).join("config.json")).unwrap()).unwrap()
    };
    let (before, after) = (config("imported"), config("back"));
    for field in ["model_type", "architectures", "n_embd", "n_head", "n_inner", "n_positions"] {
        assert_eq!(before[field], after[field], "{field}");
    }
}

#[test]
fn names_that_lie_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "config.json"] {
        fs::copy(fixture(name), folder.path().join(name)).unwrap();
    }
    let config = folder.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    fields["rope_theta"] = json!(100.0);
    fs::write(&config, fields.to_string()).unwrap();
    let (model, place) = (folder.path().join("model.onnx"), folder.path().join("q.gguf"));
    let args = ["quantize", text(&model), "-r", "gguf_q8_0", "-o", text(&place)];
    let (_, error, code) = onnxq(&args);
    assert_eq!((code, place.exists()), (3, false), "{error}");
    assert!(error.contains("error[E124]") && error.contains("computes other logits"), "{error}");
    // Without names nothing is guessed.
    fs::copy(fixture("model_dynamo.onnx"), &model).unwrap();
    let (_, error, _) = onnxq(&args);
    assert!(error.contains("no weight of") && error.contains("q_proj"), "{error}");
}
