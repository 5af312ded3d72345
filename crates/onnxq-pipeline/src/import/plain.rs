//! A model, a tokenizer, a configuration.

use super::Layout;
use onnxq_formats::Form;
use onnxq_ir::onnx::{DataEnding, ExternalData};

pub(super) const PLAIN: Layout = Layout {
    name: "plain",
    help: "model.onnx with its tokenizer and configuration; model_RECIPE.onnx if there are several",
    form: |_| Form::Standard,
    decoders_only: false,
    external: ExternalData::Auto,
    ending: DataEnding::Dot,
    vectors: "token_embeddings",
    file: |recipe, count| match count {
        1 => "model.onnx".to_owned(),
        _ => format!("model_{recipe}.onnx"),
    },
    finish: |_, _, _| Ok(Vec::new()),
};
