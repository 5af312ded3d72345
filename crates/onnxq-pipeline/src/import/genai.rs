//! A folder for onnxruntime-genai, and so for Foundry Local.

use serde_json::{Map, Value, json};

use super::{ImportedModel, Layout, folder::Folder};
use crate::Error;
use onnxq_formats::{Architecture, Checkpoint, CheckpointError, Form};
use onnxq_ir::onnx::ExternalData;

pub(super) const GENAI: Layout = Layout {
    name: "genai",
    help: "model.onnx and genai_config.json for onnxruntime-genai and Foundry Local; one recipe",
    form,
    decoders_only: true,
    external: ExternalData::Always,
    file: |_, _| "model.onnx".to_owned(),
    finish,
};

/// One buffer for past and present needs the kernel with places inside; without rotary embeddings
/// places are looked up, so there is nothing to put inside.
fn form(architecture: &Architecture) -> Form {
    match architecture.rotaries.is_empty() {
        true => Form::Standard,
        false => Form::GroupQuery,
    }
}

fn finish(
    folder: &mut Folder,
    checkpoint: &Checkpoint,
    _models: &[ImportedModel],
) -> Result<(), Error> {
    let config = object(checkpoint, "config.json")?;
    let generation = object(checkpoint, "generation_config.json")?;
    let text = config_of(&checkpoint.architecture, &config, &generation);
    folder.write("genai_config.json", &(text + "\n"))
}

/// A JSON object beside the checkpoint; empty if there is none.
fn object(checkpoint: &Checkpoint, name: &str) -> Result<Map<String, Value>, Error> {
    let path = checkpoint.folder.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => return Err(CheckpointError::Io { path, source }.into()),
    };
    let wrong = |problem: String| CheckpointError::Json { file: name.to_owned(), problem };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("it holds another kind of value".into()).into()),
        Err(error) => Err(wrong(error.to_string()).into()),
    }
}

/// What onnxruntime-genai calls an architecture.
fn kind(model_type: &str) -> &str {
    match model_type {
        "gemma3_text" => "gemma3_text",
        other => other,
    }
}

fn config_of(
    architecture: &Architecture,
    config: &Map<String, Value>,
    generation: &Map<String, Value>,
) -> String {
    let own = |name: &str| {
        let found = generation.get(name).or_else(|| config.get(name));
        found.filter(|it| !it.is_null()).cloned()
    };
    let attention = &architecture.blocks[0].attention.body;
    let shares = form(architecture) == Form::GroupQuery;
    let mut inputs = json!({
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    });
    if !shares {
        inputs["position_ids"] = "position_ids".into();
    }
    let eos = own("eos_token_id").unwrap_or(json!(0));
    let pad = own("pad_token_id").or_else(|| first(&eos)).unwrap_or(json!(0));
    let text = json!({
        "model": {
            "type": kind(&architecture.model_type),
            "bos_token_id": own("bos_token_id").unwrap_or(json!(0)),
            "eos_token_id": eos,
            "pad_token_id": pad,
            "context_length": architecture.context,
            "vocab_size": architecture.vocabulary,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx",
                "head_size": attention.head_size,
                "hidden_size": architecture.hidden,
                "num_attention_heads": attention.heads,
                "num_hidden_layers": architecture.blocks.len(),
                "num_key_value_heads": attention.kv_heads,
                "inputs": inputs,
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": own("do_sample").unwrap_or(json!(false)),
            "early_stopping": true,
            "max_length": architecture.context,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": shares,
            "repetition_penalty": own("repetition_penalty").unwrap_or(json!(1.0)),
            "temperature": own("temperature").unwrap_or(json!(1.0)),
            "top_k": own("top_k").unwrap_or(json!(1)),
            "top_p": own("top_p").unwrap_or(json!(1.0)),
        },
    });
    serde_json::to_string_pretty(&text).expect("it is made of JSON values")
}

fn first(ids: &Value) -> Option<Value> {
    match ids {
        Value::Array(list) => list.first().cloned(),
        other => Some(other.clone()),
    }
}
