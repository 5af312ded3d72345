//! Comparing two models in ONNX Runtime.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Error;
use crate::{
    calibrate::{self, DataOptions},
    ctx::Ctx,
    engine::{self, RuntimeOptions, SessionOptions},
    onnx::{self, OpenOptions},
    recipe::Gate,
    report::{CompareOptions, Comparison, GateResult, Size, compare},
};

/// Two models compared.
#[derive(Clone, Debug, Serialize)]
pub struct Validation {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub onnxruntime: String,
    pub reference: PathBuf,
    pub candidate: PathBuf,
    pub data: PathBuf,
    pub data_sha256: String,
    pub comparison: Comparison,
    pub gates: Vec<GateResult>,
    pub pass: bool,
}

/// How to compare two models.
pub struct Validate<'a> {
    pub reference: &'a Path,
    pub candidate: &'a Path,
    pub data: &'a Path,
    pub options: DataOptions,
    pub open: OpenOptions,
    pub gates: &'a [Gate],
    pub latency: bool,
    pub threads: usize,
    pub runtime: RuntimeOptions<'a>,
}

/// Runs both models in ONNX Runtime on the same data.
pub fn validate(job: &Validate, ctx: &Ctx) -> Result<Validation, Error> {
    // ONNX Runtime sees only what our own reader accepts.
    let sizes =
        [job.reference, job.candidate].map(|it| Ok(onnx::open(it, &job.open)?.files.size()));
    let [reference_bytes, candidate_bytes] = sizes.map(|it: Result<u64, Error>| it);
    let size = Size::new(reference_bytes?, candidate_bytes?);
    let library = engine::ensure(&job.runtime)?;
    let session = SessionOptions { threads: job.threads, ..SessionOptions::default() };
    let mut reference = engine::open(job.reference, &session, &job.runtime)?;
    let mut candidate = engine::open(job.candidate, &session, &job.runtime)?;
    let mut batches = calibrate::open(job.data, reference.inputs(), &job.options)?;
    let data_sha256 = batches.sha256().to_owned();
    let samples = batches.samples();
    let options = CompareOptions { latency: job.latency, samples, ..CompareOptions::default() };
    let mut comparison =
        compare(reference.as_mut(), candidate.as_mut(), &mut batches, &options, ctx)?;
    comparison.size = Some(size);
    let gates: Vec<GateResult> = job.gates.iter().map(|it| it.check(&comparison)).collect();
    Ok(Validation {
        schema: "onnxq.validate/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        onnxruntime: library.version,
        reference: job.reference.into(),
        candidate: job.candidate.into(),
        data: job.data.into(),
        data_sha256,
        pass: gates.iter().all(|it| it.pass),
        comparison,
        gates,
    })
}
