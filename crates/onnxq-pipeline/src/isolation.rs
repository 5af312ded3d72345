//! How much of the error is the weights', and how much the way they are computed with.

use std::{borrow::Cow, path::Path};

use super::{Error, open, search::evaluator::Evaluator, validate::open_session};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, Attached, Files, Loaded},
};
use onnxq_quant::lower::{self, FLOAT};
use onnxq_report::{Isolation, summary::finite};
use onnxq_rewrite as rewrite;
use onnxq_run::{
    data::Batches,
    engine::{Runtime, SessionOptions},
};

/// Each form runs on these alone.
const SAMPLES: usize = 16;
/// The loss of the candidate in three forms, on the same samples.
pub(crate) fn isolation(
    reference: &Loaded,
    (path, candidate): (&Path, &Loaded),
    batches: Batches,
    session: &SessionOptions,
    runtime: &Runtime,
    ctx: &Ctx,
) -> Result<Isolation, Error> {
    ctx.progress.start("isolate", 3);
    let (model, files) = (&reference.model, &reference.files);
    let evaluator = Evaluator::over(model, files, batches, SAMPLES, (runtime.clone(), 1))?;
    let loss = |session| -> Result<Option<f64>, Error> {
        let loss = evaluator.loss_in(&evaluator.compare_session(session)?);
        ctx.progress.step(1);
        Ok(finite(loss))
    };
    let pinned = evaluator.pinned(&candidate.model);
    let open = |options: &SessionOptions| match &pinned {
        Cow::Borrowed(_) => open_session(candidate, path, options, runtime),
        Cow::Owned(it) => {
            open::session(it, &candidate.files, "the pinned candidate", options, runtime)
        }
    };
    let deployed = loss(open(session)?)?;
    let plain = SessionOptions { optimize: false, ..session.clone() };
    let unoptimized = loss(open(&plain)?)?;
    let (weights_only, note) = match in_float(&pinned, &candidate.files) {
        Ok((attached, left)) => {
            let plain = SessionOptions { lean: true, ..plain };
            let folder = Some(Attached::folder());
            let session = runtime.open_bytes(&attached.graph, folder, &plain)?;
            (loss(session)?, (left > 0).then(|| not_all(left)))
        }
        Err(error) => (None, Some(error.to_string())),
    };
    ctx.progress.done(&format!("{} samples", evaluator.samples()));
    let (samples, measure) = (evaluator.samples(), evaluator.measure().name().to_owned());
    Ok(Isolation { samples, measure, weights_only, deployed, unoptimized, note })
}

fn not_all(left: usize) -> String {
    let s = if left == 1 { "" } else { "s" };
    format!("{left} quantized node{s} could not be brought to float and ran as they are")
}

/// The candidate with what its weights stand for in float, and how many nodes could not be.
fn in_float(candidate: &Model, files: &Files) -> Result<(Attached, usize), Error> {
    let (mut model, silent) = (candidate.clone(), Ctx::silent());
    rewrite::run(&mut model, &["infer-types"], &silent)?;
    let report = lower::convert(&mut model, &FLOAT, &silent)?;
    model.remove_all_dead();
    Ok((onnx::attach(&model, files)?, report.left.len()))
}
