//! ONNX as protobuf: `.onnx`.

use std::path::Path;

use bytes::Bytes;
use onnxq_ir::{
    onnx::{self, OpenOptions},
    text as onnx_text,
};

use super::{Outcome, Target, explore::explore, refusal, text};
use crate::{corpus, mutate::Grammar};

pub(super) const TARGET: Target = Target {
    name: "model",
    about: "ONNX bytes: read, verify, infer, lint, rewrite, write, print and read back",
    run,
    grammar: Grammar::Protobuf,
    seeds,
    words: text::WORDS,
};

fn run(bytes: &[u8]) -> Outcome {
    // Fields that the schema does not know must not hide what lies beside them.
    let options =
        OpenOptions { drop_unknown: bytes.len().is_multiple_of(2), ..OpenOptions::default() };
    let read = onnx::open_bytes(Bytes::copy_from_slice(bytes), Path::new("fuzz.onnx"), &options);
    read.map(|it| explore(it.model)).map_err(|it| refusal(&it))
}

/// The models of the filetests as bytes.
fn seeds() -> Vec<Vec<u8>> {
    let models = corpus::filetests().into_iter().filter_map(|it| onnx_text::parse(&it).ok());
    models
        .filter_map(|it| onnx::to_bytes(&it).ok())
        .filter(|it| it.len() <= corpus::LONGEST)
        .collect()
}
