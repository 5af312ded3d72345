//! The whole job: from a model that was read to one that can be written.

use super::{Error, Job, Lowered, Opened, Outcome};
use onnxq_ir::onnx::check_place;

/// What became of a model.
pub enum Quantized {
    Lowered(Box<Lowered>),
    /// Nothing in it can be quantized, and [`Inputs::allow_noop`](super::Inputs::allow_noop) is off.
    Nothing(Box<Outcome>),
}

/// Reads nothing and writes nothing but statistics: every stage in order, in memory.
///
/// # Errors
/// What the stages say: the recipe does not fit (E7xx), data is missing or wrong (E6xx), ONNX
/// Runtime is missing or fails (E8xx), the output exists already (E903).
pub fn quantize(model: Opened, job: &Job) -> Result<Quantized, Error> {
    if let Some(path) = &job.inputs.output.path {
        check_place(path)?;
        job.inputs.output.save.check_free(path)?;
    }
    let planned = model.prepare(job)?.plan(job)?;
    if planned.is_noop(job) {
        return Ok(Quantized::Nothing(Box::new(planned.nothing(job))));
    }
    let decided = planned.decide(job)?;
    if decided.planned.is_noop(job) {
        return Ok(Quantized::Nothing(Box::new(decided.planned.nothing(job))));
    }
    Ok(Quantized::Lowered(Box::new(decided.lower(job)?)))
}

/// What [`quantize`] would do, with the exact size of its output. Nothing is run on the data.
pub fn outline(model: Opened, job: &Job) -> Result<Lowered, Error> {
    model.prepare(job)?.plan(job)?.outline(job)?.lower(job)
}
