//! Whether the graph of a checkpoint computes what the ONNX model does that its weights were found in.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{Error, open::session};
use onnxq_formats::Architecture;
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::{Files, OpenOptions},
    tensor::Tensor,
};
use onnxq_run::{
    calibrate::model_inputs,
    data::Dataset,
    engine::{Runtime, SessionOptions},
};

/// Tokens of the text that both models read.
const TOKENS: usize = 12;
/// How far logits may be apart, in proportion to the largest: half floats and orders of sums differ.
const MOST: f32 = 1e-2;

/// Runs both models on a few tokens.
///
/// # Errors
/// E124 if their logits differ, and what running says.
pub(crate) fn prove(
    (path, open): (&Path, &OpenOptions),
    (built, files): (&Model, &Files),
    architecture: &Architecture,
    runtime: &Runtime,
    ctx: &Ctx,
) -> Result<(), Error> {
    ctx.progress.start("compare", 0);
    let original = onnxq_formats::open(path, open)?;
    // Numbers all over the vocabulary, in no order.
    let vocabulary = architecture.vocabulary as i64;
    let ids = (0..TOKENS as i64).map(|it| (it * 7919 + 17) % vocabulary);
    let ids = Tensor::from_i64(&[1, TOKENS], ids);
    let theirs = logits((&original.model, &original.files), &ids, runtime)?;
    let ours = logits((built, files), &ids, runtime)?;
    let largest = theirs.iter().fold(0.0f32, |most, it| most.max(it.abs()));
    let pairs = ours.iter().zip(&theirs);
    let apart = pairs.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    let off = apart / largest;
    let is_near = off <= MOST;
    // What is no number is near to nothing.
    if ours.len() != theirs.len() || !is_near {
        return Err(Different { path: path.into(), off }.into());
    }
    ctx.progress.done(&format!("the checkpoint's graph computes the same: off by {off:.0e}"));
    Ok(())
}

fn logits(
    (m, files): (&Model, &Files),
    ids: &Tensor,
    runtime: &Runtime,
) -> Result<Vec<f32>, Error> {
    let samples = BTreeMap::from([("input_ids".to_owned(), ids.clone())]);
    let mut batches = Dataset::of_samples(vec![samples]).batches(&model_inputs(m))?;
    let batch = batches.next().expect("one sample")?;
    let options = SessionOptions { lean: true, ..SessionOptions::default() };
    let mut session = session(m, files, "the model", &options, runtime)?;
    let inputs: Vec<(&str, &Tensor)> = batch.iter().map(|(name, it)| (&**name, it)).collect();
    let outputs = session.run(&inputs)?;
    let found = outputs.into_iter().find(|it| it.0 == "logits").map(|it| it.1);
    Ok(found.map(|it| it.to_f32()).transpose()?.unwrap_or_default())
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{} computes other logits than the network that its config.json and the names of its weights \
     describe: they are {off:.1e} of the largest apart",
    .path.display()
)]
struct Different {
    path: PathBuf,
    off: f32,
}

impl Diagnostic for Different {
    fn code(&self) -> Code {
        Code::E124
    }

    fn hint(&self) -> Option<String> {
        Some("name the folder of the checkpoint that it was exported from instead".into())
    }
}
