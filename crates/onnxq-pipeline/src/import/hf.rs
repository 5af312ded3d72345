//! A repository as optimum and transformers.js load it.

use std::fmt::Write;

use super::{FLOAT, ImportedModel, Layout, folder::Folder};
use crate::Error;
use onnxq_formats::{Checkpoint, Form};
use onnxq_ir::{human, onnx::ExternalData};

pub(super) const HF: Layout = Layout {
    name: "hf",
    help: "a repository for optimum and transformers.js: onnx/model.onnx, onnx/model_q4.onnx, …",
    form: |_| Form::Standard,
    decoders_only: false,
    external: ExternalData::Auto,
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
) -> Result<(), Error> {
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
    for it in models {
        let (size, needs) = (human::bytes(it.bytes), it.needs.onnxruntime);
        let _ =
            writeln!(card, "| `{}` | {} | {size} | {} | {needs} |", it.file, it.recipe, it.nodes);
    }
    folder.write("README.md", &card)
}
