//! Where the error of a model enters: value by value, against any other model that computes values
//! of the same names.

mod align;
mod bisect;
mod cut;
mod flags;
mod grid;
mod inputs;
mod noise;
mod rank;
mod spread;
mod stitched;
mod suggest;

use std::path::Path;

pub use self::bisect::bisect;
use self::{align::Aligned, noise::Meter, stitched::StitchedSession};
use super::{
    Error,
    origin::RECIPE_YAML,
    search::evaluator::{Evaluator, Measure},
    untrue,
};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    human::grouped,
    onnx::{Files, OpenOptions},
    untrusted::Untrusted,
};
use onnxq_report::document::Attribution;
use onnxq_rewrite as rewrite;
use onnxq_run::{
    calibrate,
    compare::Sizes,
    data::{Dataset, fitting},
    engine::{IoInfo, Runtime},
};

/// Two models, and samples to run them on.
pub struct Attribute<'a> {
    pub reference: &'a Path,
    pub candidate: &'a Path,
    pub data: Dataset,
    pub open: OpenOptions,
    /// Bytes for inner values that are held at a time.
    pub memory: u64,
    /// Samples, or hybrids of the models, that run at the same time. Changes no result.
    pub threads: usize,
    pub runtime: Runtime<'a>,
}

/// Losses are means over tokens, and every layer is to be looked at.
const SAMPLES: usize = 8;

/// One of the models, as its file says.
struct Side<'a> {
    model: Model,
    files: Files,
    runtime: Runtime<'a>,
}

/// Why the node that breaks a limit cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum Unbisectable {
    #[error("the two models share no inner value of the same name")]
    Unshared,
    #[error("`{}` does not hold even for the reference itself, or is not measured here", Untrusted(.0))]
    Unkept(String),
}

impl Diagnostic for Unbisectable {
    fn code(&self) -> Code {
        match self {
            Unbisectable::Unshared => Code::E620,
            Unbisectable::Unkept(_) => Code::E621,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Unbisectable::Unshared => {
                "compare with the very file that was quantized: most tools keep its names".into()
            }
            Unbisectable::Unkept(_) => {
                "limit how outputs differ from the reference's: kl.mean<=0.05, sqnr_db>=20".into()
            }
        })
    }
}

/// Errors of inner values, what hurts most, and what would help.
///
/// Both models run as they are written, without ONNX Runtime's fusions, on a few samples.
pub fn attribute(job: &Attribute, ctx: &Ctx) -> Result<Attribution, Error> {
    let opened = open(job)?;
    let evaluator = evaluator(job, &opened)?;
    let sides = pinned(&evaluator, &opened);
    ctx.progress.start("attribute", 0);
    let meter = meter(job, &evaluator);
    let aligned = align(&sides, &meter)?;
    let whole = evaluator.compare_session(Box::new(whole(&sides)?))?;
    let mut result = Attribution {
        samples: evaluator.samples(),
        data_samples: evaluator.data_samples(),
        measure: measure(&evaluator).into(),
        loss: limited(evaluator.loss_in(&whole)),
        unmatched: aligned.unmatched,
        ..Attribution::default()
    };
    let noise = meter.measure(&sides, &aligned.pairs)?;
    let hurt = rank::Ranking::new(&sides, &aligned, &evaluator, &noise);
    let losses = hurt.losses(result.loss, job.threads)?;
    result.layers = hurt.layers(&losses);
    spread::add(&hurt, &meter, &mut result.layers)?;
    result.suggestions = suggest::suggestions(&hurt, &result, job.threads)?;
    let recipe = sides[1].model.metadata.iter().find(|it| it.0 == RECIPE_YAML);
    flags::name_flags(&mut result, recipe.map(|it| &*it.1));
    sides.iter().try_for_each(|it| it.files.check_unchanged())?;
    let count = grouped(aligned.pairs.len() as u64);
    ctx.progress.done(&format!("{count} values, {} samples", result.samples));
    Ok(result)
}

/// Says what is compared in place of outputs whose sizes depend on numbers.
pub fn tell(job: &Attribute, ctx: &Ctx) -> Result<(), Error> {
    let reference = side(job, job.reference)?;
    Sizes::of(&reference.model).iter().for_each(|it| ctx.progress.warn(&it.warning()));
    Ok(())
}

fn open<'a>(job: &Attribute<'a>) -> Result<[Side<'a>; 2], Error> {
    Ok([side(job, job.reference)?, side(job, job.candidate)?])
}

fn side<'a>(job: &Attribute<'a>, path: &Path) -> Result<Side<'a>, Error> {
    let mut loaded = onnxq_formats::open(path, &job.open)?;
    let data = |inputs: &[IoInfo]| Ok(job.data.batches(inputs)?);
    untrue::forget(&mut loaded.model, &loaded.files, &data, &job.runtime)?;
    let steps = ["inline-functions", "infer-types"];
    rewrite::run(&mut loaded.model, &steps, &Ctx::silent())?;
    let runtime = job.runtime.clone();
    Ok(Side { model: loaded.model, files: loaded.files, runtime })
}

fn evaluator<'a>(job: &Attribute<'a>, sides: &'a [Side<'a>; 2]) -> Result<Evaluator<'a>, Error> {
    let Side { model, files, .. } = &sides[0];
    let batches = fitting(job.data.batches(&calibrate::model_inputs(model))?, model)?;
    Evaluator::over(model, files, batches, SAMPLES, (job.runtime.clone(), job.threads))
}

/// The models as they can be compared.
fn pinned<'a>(evaluator: &Evaluator, sides: &[Side<'a>; 2]) -> [Side<'a>; 2] {
    sides.each_ref().map(|it| Side {
        model: evaluator.pinned(&it.model).into_owned(),
        files: it.files.clone(),
        runtime: it.runtime.clone(),
    })
}

fn meter<'a>(job: &Attribute, evaluator: &'a Evaluator) -> Meter<'a> {
    Meter { batches: evaluator.fed(), memory: job.memory, threads: job.threads }
}

/// The values that can be held against each other.
fn align(sides: &[Side; 2], meter: &Meter) -> Result<Aligned, Error> {
    let mut aligned = Aligned::by_name(&sides[0].model, &sides[1].model);
    let largest = meter
        .batches
        .iter()
        .rev()
        .max_by_key(|batch| batch.values().map(|it| it.numel()).sum::<usize>());
    let Some(largest) = largest else { return Ok(aligned) };
    aligned.measure(sides, largest)?;
    let one = Meter { batches: std::slice::from_ref(largest), ..*meter };
    aligned.drop_foreign(sides, &one)?;
    Ok(aligned)
}

/// The candidate as a stitched session of one stage.
fn whole(sides: &[Side; 2]) -> Result<StitchedSession, Error> {
    let inputs = calibrate::model_inputs(&sides[0].model);
    stitched::finish(&sides[1], &[], Vec::new(), &|_| None, inputs)
}

/// As reports call it.
fn measure(evaluator: &Evaluator) -> &'static str {
    match evaluator.measure() {
        Measure::Kl => "kl",
        Measure::NoiseToSignal => "noise_to_signal",
    }
}

/// Reports hold finite numbers only.
fn limited(loss: f64) -> f64 {
    loss.min(1e30)
}
