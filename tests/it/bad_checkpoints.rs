//! Broken, hostile and unknown checkpoints: a named error at once, nothing left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::common::checkpoints;
use onnxq_formats as formats;
use onnxq_ir::{
    diag::{Code, Diagnostic},
    onnx::OpenOptions,
};
use serde_json::{Value, json};

/// Of one probe. Debug builds on a busy machine take a few milliseconds.
const LONGEST: Duration = Duration::from_secs(1);

/// A copy of a good checkpoint, to be spoilt.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Copy {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(checkpoints().join(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        Copy(copy)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    fn set(&self, field: &str, value: Value) {
        self.config(|it| drop(it.as_object_mut().unwrap().insert(field.to_owned(), value)));
    }

    /// Changes the header of the weights; their data stays.
    fn header(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        change(&mut header);
        let header = header.to_string();
        let mut spoilt = (header.len() as u64).to_le_bytes().to_vec();
        spoilt.extend(header.as_bytes());
        spoilt.extend(&bytes[8 + length..]);
        fs::write(path, spoilt).unwrap();
    }

    fn weights(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.path("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// The error must have this code, and say this.
    fn fails(self, code: Code, says: &str) {
        let before = files(self.0.path());
        let start = Instant::now();
        let Err(error) = formats::open(self.0.path(), &OpenOptions::default()) else {
            panic!("it is read: {says}")
        };
        let message = error.to_string();
        assert_eq!(error.code(), code, "{message}");
        assert!(message.contains(says), "{message}");
        assert!(start.elapsed() < LONGEST, "{says}: {:?}", start.elapsed());
        assert_eq!(files(self.0.path()), before);
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    list.sort();
    list
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn fields_that_are_missing_or_of_the_wrong_kind() {
    let llama = || Copy::of("llama");
    let spoilt = |change: fn(&mut Value)| {
        let copy = llama();
        copy.config(change);
        copy
    };
    let copy = llama();
    fs::write(copy.path("config.json"), "{\"model_type\": ").unwrap();
    copy.fails(Code::E121, "config.json is no JSON object");
    let copy = llama();
    fs::write(copy.path("config.json"), "[1]").unwrap();
    copy.fails(Code::E121, "another kind of value");
    let gone = |it: &mut Value| drop(it.as_object_mut().unwrap().remove("hidden_size"));
    spoilt(gone).fails(Code::E121, "`hidden_size` is missing");
    spoilt(|it| it["num_hidden_layers"] = json!("two")).fails(Code::E121, "`num_hidden_layers`");
    spoilt(|it| it["num_hidden_layers"] = json!(-2)).fails(Code::E121, "positive whole number");
    spoilt(|it| it["num_hidden_layers"] = json!(1_000_000)).fails(Code::E121, "more than any");
    spoilt(|it| it["hidden_size"] = json!(1u32 << 31)).fails(Code::E121, "wider than any");
    spoilt(|it| it["vocab_size"] = json!(1e30)).fails(Code::E121, "`vocab_size`");
    spoilt(|it| it["rms_norm_eps"] = json!(-1.0)).fails(Code::E121, "must be above 0");
    spoilt(|it| it["rope_theta"] = json!(1e300)).fails(Code::E121, "`rope_theta`");
    spoilt(|it| it["architectures"] = json!([])).fails(Code::E121, "`architectures` is missing");
}

#[test]
fn sizes_that_contradict_each_other() {
    let copy = Copy::of("llama");
    copy.set("num_key_value_heads", json!(3));
    copy.fails(Code::E121, "cannot share 3");
    let copy = Copy::of("llama");
    copy.set("num_attention_heads", json!(5));
    copy.fails(Code::E121, "no multiple");
    let copy = Copy::of("llama");
    copy.set("hidden_size", json!(128));
    copy.fails(Code::E124, "but by the configuration it must be");
    let copy = Copy::of("llama");
    copy.set("num_hidden_layers", json!(3));
    copy.fails(Code::E124, "tensor `model.layers.2.");
    let copy = Copy::of("llama");
    copy.set("num_hidden_layers", json!(1));
    copy.fails(Code::E124, "used by nothing");
    let copy = Copy::of("phi4-mini");
    copy.set("partial_rotary_factor", json!(0.01));
    copy.fails(Code::E121, "rotated elements");
    let copy = Copy::of("gemma3");
    copy.set("layer_types", json!(["full_attention"]));
    copy.fails(Code::E121, "must have 4 entries");
}

#[test]
fn what_is_not_known_is_no_graph() {
    let spoilt = |name: &str, field: &str, value: Value| {
        let copy = Copy::of(name);
        copy.set(field, value);
        copy
    };
    spoilt("llama", "model_type", json!("mamba")).fails(Code::E122, "`mamba` is not known");
    let class = json!(["LlamaForSequenceClassification"]);
    spoilt("llama", "architectures", class).fails(Code::E122, "LlamaForSequenceClassification");
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    spoilt("llama", "rope_scaling", yarn).fails(Code::E122, "`rope_scaling.rope_type`");
    spoilt("llama", "hidden_act", json!("mish")).fails(Code::E122, "`hidden_act`");
    spoilt("llama", "logit_scale", json!(0.5)).fails(Code::E122, "`logit_scale` is 0.5");
    let quantized = json!({"quant_method": "hqq"});
    spoilt("llama", "quantization_config", quantized).fails(Code::E122, "`hqq`, which is not");
    spoilt("gpt2", "scale_attn_by_inverse_layer_idx", json!(true)).fails(Code::E122, "inverse");
    let relative = json!("relative_key");
    spoilt("bert-ner", "position_embedding_type", relative).fails(Code::E122, "relative_key");
    let extra = json!({"rope_type": "linear", "factor": 2.0, "beta": 3});
    spoilt("llama", "rope_scaling", extra).fails(Code::E122, "`rope_scaling.beta`");
    let types = json!(["full_attention", "linear_attention"]);
    spoilt("qwen2", "layer_types", types).fails(Code::E122, "linear_attention");
}

#[test]
fn files_of_weights_that_are_cut_or_lie() {
    let llama = || Copy::of("llama");
    let spoilt = |change: fn(&mut Vec<u8>)| {
        let copy = llama();
        copy.weights(change);
        copy
    };
    spoilt(|it| it.truncate(it.len() - 100)).fails(Code::E123, "model.safetensors");
    spoilt(|it| it.truncate(5)).fails(Code::E123, "model.safetensors");
    spoilt(|it| it.extend([0; 64])).fails(Code::E123, "model.safetensors");
    spoilt(|it| it[..8].fill(0xff)).fails(Code::E123, "model.safetensors");
    spoilt(|it| it[..8].copy_from_slice(&(99u64 << 20).to_le_bytes())).fails(Code::E123, "model.s");
    spoilt(|it| it[8..12].copy_from_slice(b"\xff\xfe\xfd\xfc")).fails(Code::E123, "model.s");
    let turned = |change: fn(&mut Value)| {
        let copy = llama();
        copy.header(change);
        copy
    };
    turned(|it| it[Q]["data_offsets"] = json!([0, 8192])).fails(Code::E123, "model.safetensors");
    turned(|it| it[Q]["data_offsets"] = json!([8192, 0])).fails(Code::E123, "model.safetensors");
    turned(|it| it[Q]["shape"] = json!([1u64 << 62, 1u64 << 62])).fails(Code::E123, "model.s");
    turned(|it| it[Q]["shape"] = json!([32, 128])).fails(Code::E124, "q_proj.weight` is bf16[32");
    turned(|it| it[Q]["dtype"] = json!("I16")).fails(Code::E124, "it must be a float of");
    let renamed = |it: &mut Value| {
        let map = it.as_object_mut().unwrap();
        let tensor = map.remove(Q).unwrap();
        map.insert("model.layers.0.self_attn.Q.weight\u{1b}[31m".to_owned(), tensor);
    };
    turned(renamed).fails(Code::E124, Q);
}

#[test]
fn shards_and_folders() {
    let copy = Copy::of("qwen2");
    let shard = files(copy.0.path()).into_iter().find(|it| it.to_str().unwrap().contains("-of-"));
    fs::remove_file(shard.unwrap()).unwrap();
    copy.fails(Code::E206, "was not found");
    let spoilt = |change: fn(&mut Value)| {
        let copy = Copy::of("qwen2");
        let path = copy.path("model.safetensors.index.json");
        let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        fs::write(path, index.to_string()).unwrap();
        copy
    };
    let escape = json!("../../etc/passwd");
    let set = |it: &mut Value, value: Value| it["weight_map"]["model.norm.weight"] = value;
    let copy = spoilt(|it| it["weight_map"] = json!(3));
    copy.fails(Code::E121, "`weight_map` must be");
    let copy =
        spoilt(|it| it["weight_map"]["nobody"] = it["weight_map"]["model.norm.weight"].clone());
    copy.fails(Code::E124, "`nobody` is missing");
    let copy = Copy::of("qwen2");
    let path = copy.path("model.safetensors.index.json");
    let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    set(&mut index, escape);
    fs::write(path, index.to_string()).unwrap();
    copy.fails(Code::E201, "leads out of the model's folder");
    let copy = Copy::of("llama");
    fs::rename(copy.path("model.safetensors"), copy.path("pytorch_model.bin")).unwrap();
    copy.fails(Code::E125, "pytorch_model.bin");
    let copy = Copy::of("llama");
    fs::remove_file(copy.path("model.safetensors")).unwrap();
    copy.fails(Code::E120, "no model.safetensors");
    let copy = Copy::of("llama");
    fs::remove_file(copy.path("config.json")).unwrap();
    copy.fails(Code::E120, "no config.json and 0 ONNX files");
}
