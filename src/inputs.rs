//! What a quantization learns from, and its limits.

use std::{fmt, path::PathBuf};

use onnxq_pipeline as pipeline;

use super::{Dataset, Progress, Runtime, SaveOptions};

/// What a quantization learns from, and its limits. All of it may be left out.
#[derive(Clone)]
#[non_exhaustive]
pub struct Inputs<'a> {
    /// Samples to calibrate on; recipes for static int8, GPTQ, AWQ need them.
    pub data: Option<Dataset>,
    /// A file that keeps statistics of the data: read if it is there, written if not.
    pub statistics: Option<PathBuf>,
    /// Bytes that statistics may take at a time.
    pub memory: u64,
    /// Samples that run at the same time; 0: one per core. Changes no result.
    pub threads: usize,
    /// What runs the model on the data.
    pub runtime: Runtime,
    /// Choose bits and block of each weight by measurement, under a goal. Needs data.
    pub goal: Option<Goal>,
    /// Leave weights with NaN or Inf in float instead of failing (E501).
    pub skip_nonfinite: bool,
    /// How the result will be saved: a goal for its size depends on that.
    pub save: SaveOptions,
    /// Who is told what happens.
    pub progress: Option<&'a dyn Progress>,
}

/// What a mix of bits must satisfy.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Goal {
    /// Bytes of all files of the result, at most.
    MaxSize(u64),
    /// Mean KL divergence from the float model on the data in nats, at most.
    MaxKl(f64),
    /// Stored bits per weight, scales and zero points included, at most.
    BitsPerWeight(f64),
}

impl Default for Inputs<'_> {
    fn default() -> Self {
        Inputs {
            data: None,
            statistics: None,
            memory: 2 << 30,
            threads: 0,
            runtime: Runtime::default(),
            goal: None,
            skip_nonfinite: false,
            save: SaveOptions::default(),
            progress: None,
        }
    }
}

impl<'a> Inputs<'a> {
    /// With samples to calibrate on.
    pub fn with_data(data: Dataset) -> Inputs<'a> {
        Inputs { data: Some(data), ..Inputs::default() }
    }

    /// The same in another ONNX Runtime.
    pub fn runtime(self, runtime: Runtime) -> Inputs<'a> {
        Inputs { runtime, ..self }
    }

    pub(crate) fn inner(&self) -> pipeline::Inputs<'static> {
        let goal = self.goal.map(|it| match it {
            Goal::MaxSize(bytes) => pipeline::Goal::MaxSize(bytes),
            Goal::MaxKl(nats) => pipeline::Goal::MaxKl(nats),
            Goal::BitsPerWeight(bits) => pipeline::Goal::TargetBpw(bits),
        });
        pipeline::Inputs {
            data: self.data.as_ref().map(|it| it.inner.clone()),
            stats: self.statistics.clone(),
            memory: self.memory,
            threads: self.threads,
            runtime: self.runtime.value(),
            skip_nonfinite: self.skip_nonfinite,
            goal,
            output: pipeline::OutputFile { path: None, save: self.save.inner() },
            ..pipeline::Inputs::default()
        }
    }
}

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("data", &self.data).finish_non_exhaustive()
    }
}
