//! Both models in ONNX Runtime on the same samples.

use std::fmt;

use onnxq_ir::{
    ctx::Ctx,
    onnx::{Files, Loaded},
};
use onnxq_pipeline::{self as pipeline, Measures};

use super::{
    Dataset, Error, Gate, Model, Progress, Report, Runtime,
    progress::{Inner, Silent},
};

/// What to measure, and what to demand.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ValidateOptions<'a> {
    /// What runs the models.
    pub runtime: Runtime,
    /// Limits that the report judges.
    pub gates: Vec<Gate>,
    /// Measure times of runs, and which instructions they execute.
    pub latency: bool,
    /// Measure steps with a cache of keys and values, if the models have one.
    pub decode: bool,
    /// Tell apart the error of weights and that of how they are computed with.
    pub isolation: bool,
    /// Threads of a session; 0 counts as 1.
    pub threads: usize,
    /// Who is told what happens.
    pub progress: Option<&'a dyn Progress>,
}

/// Runs both models on the same samples and says how the candidate's outputs differ.
///
/// ```no_run
/// use onnxq::{Dataset, DatasetOptions, Model, Runtime, ValidateOptions, validate};
///
/// # fn main() -> Result<(), onnxq::Error> {
/// let [float, quantized] = [Model::open("model.onnx")?, Model::open("model.q.onnx")?];
/// let data = Dataset::open("eval_ids.npy", DatasetOptions::default());
/// let mut options = ValidateOptions::default();
/// options.runtime = Runtime::at("libonnxruntime.so");
/// options.gates = vec!["kl.mean<=0.01".parse()?];
/// let report = validate(&float, &quantized, &data, &options)?;
/// println!("KL {:?} nats", report.figure("kl", Some("mean")));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// E601 to E609 if the data does not fit, or the models cannot be compared; E8xx if ONNX Runtime is
/// missing or fails. A gate that does not hold is no error: see [`Report::passes`].
pub fn validate(
    reference: &Model,
    candidate: &Model,
    data: &Dataset,
    options: &ValidateOptions,
) -> Result<Report, Error> {
    let gates: Vec<_> = options.gates.iter().map(|it| it.inner.clone()).collect();
    let measures = Measures {
        latency: options.latency,
        decode: options.decode,
        isolation: options.isolation,
        ..Measures::default()
    };
    let job = pipeline::Validate {
        gates: &gates,
        measures,
        threads: options.threads.max(1),
        runtime: options.runtime.value(),
        ..pipeline::Validate::new(reference.path(), candidate.path(), data.inner.clone())
    };
    let progress = Inner(options.progress.unwrap_or(&Silent));
    let ctx = Ctx { progress: &progress, ..Ctx::silent() };
    let models = [loaded(reference), loaded(candidate)];
    let inner = pipeline::validate_loaded(models, &job, None, &ctx).map_err(Error::of)?;
    Ok(Report { inner })
}

/// A copy for the comparison; weights are shared.
fn loaded(it: &Model) -> Loaded {
    let Loaded { model, warnings, files } = &it.loaded;
    let files = match it.is_as_filed {
        true => files.clone(),
        false => Files::in_memory(&files.model, Default::default()),
    };
    Loaded { model: model.clone(), warnings: warnings.clone(), files }
}

impl fmt::Debug for ValidateOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateOptions").field("gates", &self.gates).finish_non_exhaustive()
    }
}
