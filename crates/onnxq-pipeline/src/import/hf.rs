//! A repository as optimum and transformers.js load it.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    FLOAT, ImportedModel, Layout, Warning,
    folder::{self, Folder},
};
use crate::Error;
use onnxq_formats::{Architecture, Checkpoint, Form};
use onnxq_ir::{
    human,
    onnx::{DataEnding, ExternalData},
};

pub(super) const HF: Layout = Layout {
    name: "hf",
    help: "a repository for optimum and transformers.js: onnx/model.onnx, onnx/model_q4.onnx, …",
    form: |_| Form::Standard,
    decoders_only: false,
    external: ExternalData::Auto,
    ending: DataEnding::Underscore,
    vectors: "last_hidden_state",
    file: |recipe, _| format!("onnx/model{}.onnx", suffix(recipe)),
    finish,
};

/// What clients call it: their names are of number formats, several recipes make one.
fn suffix(recipe: &str) -> String {
    match recipe {
        FLOAT => String::new(),
        "int4" | "int4_quality" | "int4_size" => "_q4".to_owned(),
        "int8_weights" => "_int8".to_owned(),
        "arm64" | "arm64_static" | "avx2" | "avx2_static" | "avx512_vnni" | "avx512_vnni_row"
        | "avx512_vnni_static" => "_quantized".to_owned(),
        other => format!("_{other}"),
    }
}

fn finish(
    folder: &mut Folder,
    checkpoint: &Checkpoint,
    models: &[ImportedModel],
) -> Result<Vec<Warning>, Error> {
    let name = checkpoint.folder.file_name().unwrap_or_default().to_string_lossy();
    let task = if checkpoint.architecture.is_decoder() { "text-generation" } else { "" };
    let mut card = String::from("---\nlibrary_name: transformers.js\n");
    if !task.is_empty() {
        let _ = writeln!(card, "pipeline_tag: {task}");
    }
    let _ = write!(
        card,
        "tags:\n- onnx\n- onnxruntime\n---\n\n# {name}, as ONNX\n\nMade of the checkpoint by \
         onnxq {}.\n\n| file | recipe | size | nodes | needs ONNX Runtime |\n\
         | --- | --- | --- | --- | --- |\n",
        env!("CARGO_PKG_VERSION")
    );
    config(folder, models)?;
    tokenizer(folder)?;
    // optimum looks for it beside the model.
    let root = folder.root().to_owned();
    folder.copy(&root, &["generation_config.json"], "onnx")?;
    for it in models {
        let (size, needs) = (human::bytes(it.bytes), it.needs.onnxruntime);
        let _ =
            writeln!(card, "| `{}` | {} | {size} | {} | {needs} |", it.file, it.recipe, it.nodes);
    }
    folder.write("README.md", &card)?;
    Ok(caveats(&checkpoint.architecture))
}

/// What transformers.js asks `config.json`: which files have external data, in how many parts, and which
/// file to take if nobody says.
fn config(folder: &mut Folder, models: &[ImportedModel]) -> Result<(), Error> {
    let mut config = folder::object(folder.root(), "config.json")?;
    let mut own = match config.remove("transformers.js_config") {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    let mut parts = Map::new();
    for it in models {
        let name = it.file.rsplit('/').next().unwrap_or_default();
        if folder.path(format!("{}_data", it.file))?.exists() {
            parts.insert(name.to_owned(), 1.into());
        }
    }
    own.remove("use_external_data_format");
    if !parts.is_empty() {
        own.insert("use_external_data_format".to_owned(), parts.into());
    }
    let has_float = models.iter().any(|it| it.recipe == FLOAT);
    if let Some(first) = models.first().filter(|_| !has_float) {
        let dtype = match suffix(&first.recipe).trim_start_matches('_') {
            "quantized" => "q8".to_owned(),
            other => other.to_owned(),
        };
        own.insert("dtype".to_owned(), dtype.into());
    }
    if !own.is_empty() {
        config.insert("transformers.js_config".to_owned(), own.into());
    }
    folder.write("config.json", &pretty(config))
}

/// transformers.js reads the chat template from the tokenizer's configuration only, and older
/// transformers do not know the class that newer ones write.
fn tokenizer(folder: &mut Folder) -> Result<(), Error> {
    let mut config = folder::object(folder.root(), "tokenizer_config.json")?;
    if config.is_empty() {
        return Ok(());
    }
    if config.get("tokenizer_class").is_some_and(|it| it == "TokenizersBackend") {
        config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    }
    let beside = folder.root().join("chat_template.jinja");
    if let Ok(template) = onnxq_ir::fs::read_text(&beside) {
        config.insert("chat_template".to_owned(), template.into());
    }
    folder.write("tokenizer_config.json", &pretty(config))
}

fn pretty(fields: Map<String, Value>) -> String {
    let text = serde_json::to_string_pretty(&Value::Object(fields));
    text.expect("it is made of JSON values") + "\n"
}

/// What a client cannot load, whatever is written.
fn caveats(architecture: &Architecture) -> Vec<Warning> {
    let attention = &architecture.blocks[0].attention.body;
    let is_wide = attention.head_size * attention.heads != architecture.hidden;
    let refused = match &*architecture.model_type {
        "gemma" | "gemma3_text" => false,
        "gemma2" => true,
        "phi3" => attention.kv_heads != attention.heads || is_wide,
        _ => is_wide,
    };
    let text = format!(
        "optimum (2.1) cannot load `{}` models of this shape: it has its own list of cache shapes; \
         transformers.js can",
        architecture.model_type
    );
    let refused = refused && architecture.is_decoder();
    refused.then(|| Warning::remark(text)).into_iter().collect()
}
