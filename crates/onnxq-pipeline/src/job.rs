//! What a job is made of besides the model: a recipe, data, limits, and where the result goes.

use std::path::PathBuf;

use super::{Error, Goal, distil::Lessons};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{Files, SaveOptions},
};
use onnxq_quant::recipe::Recipe;
use onnxq_run::{
    calibrate::{self, CollectOptions, Run},
    data::{Batches, Dataset, fitting},
    engine::Runtime,
};

/// What each stage is given.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub recipe: &'a Recipe,
    pub inputs: &'a Inputs<'a>,
    pub ctx: &'a Ctx<'a>,
}

/// What a quantization learns from, and its limits.
#[derive(Clone)]
pub struct Inputs<'a> {
    /// Samples to calibrate on.
    pub data: Option<Dataset>,
    /// Samples that `distil` trains on, if they are others or more.
    pub training: Option<Lessons>,
    /// A file of what the teacher of `distil` says: read as far as it goes, and written.
    pub answers: Option<PathBuf>,
    /// A file that keeps statistics: read if it is there, written if not.
    pub stats: Option<PathBuf>,
    /// Bytes for the sums that are kept at a time.
    pub memory: u64,
    /// Samples that run at the same time; 0: one per core. Changes no result.
    pub threads: usize,
    pub runtime: Runtime<'a>,
    /// Leave weights with NaN or Inf in float instead of failing.
    pub skip_nonfinite: bool,
    /// Choose bits and blocks by measurement. Needs data.
    pub goal: Option<Goal>,
    /// Go on if nothing can be quantized.
    pub allow_noop: bool,
    /// Write the result even if ONNX Runtime refuses it.
    pub allow_refused: bool,
    pub output: OutputFile,
}

/// Where a result will go, as far as that decides its bytes.
#[derive(Clone, Debug, Default)]
pub struct OutputFile {
    /// `None`: it stays in memory.
    pub path: Option<PathBuf>,
    pub save: SaveOptions,
}

impl Default for Inputs<'_> {
    /// No data and no statistics: enough for solvers that need none.
    fn default() -> Self {
        Inputs {
            data: None,
            training: None,
            answers: None,
            stats: None,
            memory: 2 << 30,
            threads: 1,
            runtime: Runtime::default(),
            skip_nonfinite: false,
            goal: None,
            allow_noop: false,
            allow_refused: false,
            output: OutputFile::default(),
        }
    }
}

impl Inputs<'_> {
    /// The samples for a model; none if there is no data.
    pub(super) fn batches(&self, m: &Model) -> Result<Batches, Error> {
        let none = || Dataset::of_samples(Vec::new());
        let data = self.data.clone().unwrap_or_else(none);
        Ok(fitting(data.batches(&calibrate::model_inputs(m))?, m)?)
    }

    /// A run on the samples, of a model that is made of what `files` hold.
    pub(super) fn run<'b>(
        &'b self,
        model: &'b Model,
        files: &'b Files,
        batches: Batches,
    ) -> Run<'b> {
        let options = CollectOptions {
            memory: self.memory,
            threads: self.threads,
            ..CollectOptions::default()
        };
        Run { model, files, batches, options, runtime: self.runtime.clone() }
    }
}
