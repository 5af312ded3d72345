//! A step of `quantize`: what quantization took is given back by training against the float model.

use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
    digest::sha256_hex,
    onnx::Files,
};
use onnxq_quant::plan::SitePlan;

use super::{Learnt, Lessons, Student, Training, apply};
use crate::{Error, Job, NeedsData, origin};
use onnxq_run::calibrate;

/// Trains the canonical form of a quantized model, if the recipe says so.
pub(crate) fn recover(
    m: &mut Model,
    (teacher, files): (&Model, &Files),
    sites: &[SitePlan],
    job: &Job,
) -> Result<Option<Learnt>, Error> {
    let Some(spec) = &job.recipe.distil else { return Ok(None) };
    let given = || job.inputs.data.clone().map(Lessons::Samples);
    let Some(lessons) = job.inputs.training.clone().or_else(given) else {
        return Err(NeedsData { who: "`distil`".to_owned() }.into());
    };
    if spec.hidden > 0.0 {
        return Err(NoHidden.into());
    }
    let examples = lessons.examples(m)?;
    let recipe = origin::recipe_facts(job.recipe).sha256;
    let student = Student {
        model: m,
        bits: sites.iter().map(|it| it.scheme.bits).min(),
        key: sha256_hex(format!("{}\n{recipe}", calibrate::model_sha256(files))),
    };
    let training = Training {
        student,
        teacher: Some((teacher, files)),
        spec,
        examples: &*examples,
        runtime: job.inputs.runtime.clone(),
        threads: job.inputs.threads,
        memory: job.inputs.memory,
        output: job.inputs.output.path.as_deref(),
        hidden: None,
        answers: job.inputs.answers.as_deref(),
    };
    let (changes, learnt) = training.run(job.ctx)?;
    apply(m, changes);
    Ok(Some(learnt))
}

/// Hidden states of a quantized model are not those of the float one: it may be rotated.
#[derive(Debug, thiserror::Error)]
#[error("`distil.hidden` has no effect: a quantized student is judged by its outputs")]
struct NoHidden;

impl Diagnostic for NoHidden {
    fn code(&self) -> Code {
        Code::E641
    }

    fn hint(&self) -> Option<String> {
        Some("leave it out".to_owned())
    }
}
