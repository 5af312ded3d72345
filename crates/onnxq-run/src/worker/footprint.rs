//! How long a model takes to load and how much memory it needs: alone, in a process of its own.
//!
//! In the process that compares, two models and the data of both share memory and caches; the
//! worker has one model, and its peak is the model's.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Answer, FootprintJob, Library, Refusal, Request, Worker, WorkerError, WorkerOptions,
    client::garbled, memory::own, server::runtime,
};
use crate::{
    calibrate,
    data::{self, DataOptions},
    engine::SessionOptions,
};
use onnxq_ir::{onnx, tensor::Tensor};
use onnxq_report::Footprint;

/// The time to load varies; of smaller models it is measured several times.
const LARGE: u64 = 1 << 30;
const RUNS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Measures a model, all of whose files have so many bytes, in workers that are processes of
/// `program`; of several runs, the one with the median time to load.
pub fn footprint(program: &Path, bytes: u64, job: FootprintJob) -> Result<Footprint, WorkerError> {
    let request = Request::Footprint(job);
    let runs = if bytes > LARGE { 1 } else { RUNS };
    let options = WorkerOptions { program: program.to_owned(), ..WorkerOptions::default() };
    let list = (0..runs).map(|_| match Worker::start(&options)?.ask(&request, TIMEOUT)? {
        Answer::Footprint(it) => Ok(it),
        other => Err(garbled(&other)),
    });
    let mut list = list.collect::<Result<Vec<_>, _>>()?;
    let load = |it: &Footprint| it.load_ms.unwrap_or(0.0);
    list.sort_by(|a, b| load(a).total_cmp(&load(b)));
    Ok(list[runs / 2])
}

/// What the worker does: loads the model, runs one sample, looks at itself.
pub(super) fn measure(job: &FootprintJob) -> Result<Footprint, Refusal> {
    // Our own reader first, as always, and everything of it goes before memory is looked at.
    let inputs = calibrate::model_inputs(&onnx::open(&job.model, &job.open)?.model);
    let options = DataOptions {
        tokenizer: job.tokenizer.clone(),
        preprocess: job.preprocess.clone(),
        ..DataOptions::default()
    };
    let mut batches = data::open(&job.data, &inputs, &options)?;
    batches.one_by_one();
    let sample = batches.next().transpose()?.unwrap_or_default();
    drop(batches);
    let runtime =
        runtime(&Library { path: job.library.clone(), custom_ops: job.custom_ops.clone() });
    runtime.start()?;
    let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let base_bytes = own("VmRSS:");
    let session = SessionOptions { threads: job.threads, ..SessionOptions::default() };
    let start = Instant::now();
    let mut session = runtime.open(&job.model, &session)?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let inputs: Vec<(&str, &Tensor)> = sample.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs)?;
    // Without the reset the peak may be that of our reader.
    let peak_bytes = own("VmHWM:").filter(|_| reset);
    Ok(Footprint { load_ms: Some(load_ms), peak_bytes, base_bytes })
}
