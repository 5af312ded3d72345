//! A folder for onnxruntime-genai, and so for Foundry Local.

use serde_json::{Map, Value, json};

use super::{
    ImportedModel, Layout, Warning,
    folder::{self, Folder},
};
use crate::Error;
use onnxq_formats::{Architecture, Checkpoint, Form};
use onnxq_ir::onnx::{DataEnding, ExternalData};

pub(super) const GENAI: Layout = Layout {
    name: "genai",
    help: "model.onnx and genai_config.json for onnxruntime-genai and Foundry Local; one recipe",
    form,
    decoders_only: true,
    external: ExternalData::Always,
    ending: DataEnding::Dot,
    vectors: "token_embeddings",
    file: |_, _| "model.onnx".to_owned(),
    finish,
};

/// One buffer for past and present needs the kernel with places inside, which turns multiples of 16
/// elements of a head. Without rotary embeddings places are looked up, so there is nothing inside.
fn form(architecture: &Architecture) -> Form {
    let rotaries = &architecture.rotaries;
    match !rotaries.is_empty() && rotaries.iter().all(|it| it.size.is_multiple_of(16)) {
        true => Form::GroupQuery,
        false => Form::Standard,
    }
}

fn finish(
    folder: &mut Folder,
    checkpoint: &Checkpoint,
    _models: &[ImportedModel],
) -> Result<Vec<Warning>, Error> {
    let config = folder::object(folder.root(), "config.json")?;
    let generation = folder::object(folder.root(), "generation_config.json")?;
    let text = config_of(&checkpoint.architecture, &config, &generation);
    folder.write("genai_config.json", &(text + "\n"))?;
    Ok(Vec::new())
}

/// What onnxruntime-genai calls an architecture.
fn kind(model_type: &str) -> &str {
    match model_type {
        // Its own `gpt2` wants keys and values in one tensor; every other decoder is fed alike.
        "gpt2" => "decoder",
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
    let eos = ends(architecture, [generation, config]);
    let mut ids = Map::new();
    ids.extend(own("bos_token_id").map(|it| ("bos_token_id".to_owned(), it)));
    let pad = own("pad_token_id").or_else(|| eos.first().cloned());
    ids.extend(pad.map(|it| ("pad_token_id".to_owned(), it)));
    ids.insert("eos_token_id".to_owned(), eos.into());
    let mut text = json!({
        "model": {
            "type": kind(&architecture.model_type),
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
    text["model"].as_object_mut().expect("made above").extend(ids);
    serde_json::to_string_pretty(&text).expect("it is made of JSON values")
}

/// Every token that ends a text, by either file: one often knows the end of a turn only. The client
/// refuses ids that the vocabulary does not have.
fn ends(architecture: &Architecture, files: [&Map<String, Value>; 2]) -> Vec<Value> {
    let mut ends: Vec<Value> = Vec::new();
    for found in files.iter().filter_map(|it| it.get("eos_token_id")) {
        let list = found.as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
        let known = |it: &Value| it.as_u64().is_some_and(|it| it < architecture.vocabulary as u64);
        let new = list.into_iter().filter(|it| known(it));
        for id in new {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
    }
    ends
}
