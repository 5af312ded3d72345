//! What a changed model does to the outputs, on a few samples.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Inputs, Planned, open};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::Files,
    tensor::{Tensor, TensorError},
};
use onnxq_quant::recipe::Recipe;
use onnxq_report::Comparison;
use onnxq_run::{
    calibrate::{self, CalibrateError, Replacement},
    compare::{CompareOptions, Sizes, Split, compare, left_out, splits},
    data::{Batch, Batches},
    engine::{EngineError, IoInfo, LeftOut, Runtime, Session, SessionOptions, ahead, threads},
    kept::Kept,
};

/// What a loss is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The mean KL divergence from the float model in nats, summed over outputs that are logits.
    Kl,
    /// The power of the error in proportion to the output's, summed over outputs, or over the parts of
    /// those that join several quantities.
    NoiseToSignal,
}

impl Measure {
    /// As JSON spells it.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Kl => "kl",
            Measure::NoiseToSignal => "noise_to_signal",
        }
    }
}

/// Samples are few: a loss is a mean over all their tokens, and weights are many.
const SAMPLES: usize = 16;

/// The float model, its outputs, and what they are computed from.
pub(crate) struct Evaluator<'a> {
    m: &'a Model,
    files: &'a Files,
    runtime: Runtime<'a>,
    /// Samples of one model that run at the same time; 0: one per core. Changes no result.
    threads: usize,
    batches: Vec<Batch>,
    /// Where sizes depend on numbers.
    sizes: Option<Arc<Sizes>>,
    /// The batches, with what decides sizes.
    fed: Vec<Batch>,
    samples: usize,
    /// Of the whole data.
    data_samples: usize,
    inputs: Vec<IoInfo>,
    expected: Expected,
    /// What its outputs are joined of.
    splits: BTreeMap<String, Vec<Split>>,
    measure: Measure,
    /// Models are judged as a CPU runs them whose int8 kernels do not saturate.
    exact: bool,
}

type Outputs = Vec<(String, Tensor)>;

/// What the float model says of each batch.
struct Expected {
    names: Vec<String>,
    left_out: Vec<LeftOut>,
    kept: Kept,
}

impl<'a> Evaluator<'a> {
    /// To be asked only if there is data.
    pub(crate) fn new(planned: &'a Planned, inputs: &Inputs<'a>) -> Result<Evaluator<'a>, Error> {
        let (m, files) = (&planned.model, &planned.files);
        let runtime = (inputs.runtime.clone(), inputs.threads);
        Evaluator::over(m, files, inputs.batches(m)?, SAMPLES, runtime)
    }

    /// On so many batches at most, of one sample unless the model states another number;
    /// `threads` samples at a time.
    pub(crate) fn over(
        m: &'a Model,
        files: &'a Files,
        mut batches: Batches,
        count: usize,
        (runtime, threads): (Runtime<'a>, usize),
    ) -> Result<Evaluator<'a>, Error> {
        let inputs = calibrate::model_inputs(m);
        batches.one_by_one();
        let per_batch = batches.batch();
        let data_samples = batches.samples();
        let batches = some(batches, count)?;
        let samples = batches.len() * per_batch;
        let measure = Measure::NoiseToSignal;
        let kept = Kept::new().map_err(CalibrateError::Scratch)?;
        let expected = Expected { names: Vec::new(), left_out: Vec::new(), kept };
        let mut evaluator = Evaluator {
            m,
            files,
            runtime,
            threads,
            fed: batches.clone(),
            sizes: Sizes::of(m).map(Arc::new),
            batches,
            samples,
            data_samples,
            inputs,
            expected,
            splits: BTreeMap::new(),
            measure,
            exact: false,
        };
        evaluator.expect()?;
        let mut own = evaluator.session(m, false)?;
        let same = evaluator.compare(&mut *own, &evaluator.fed[..1])?;
        if same.outputs.values().any(|it| it.kl.is_some()) {
            evaluator.measure = Measure::Kl;
        }
        Ok(evaluator)
    }

    /// Judges models as the recipe's target will run them, not as this CPU does.
    pub(crate) fn on_target(self, recipe: &Recipe) -> Evaluator<'a> {
        let exact = !recipe.target().saturates;
        Evaluator { exact, ..self }
    }

    /// Says what no loss knows of.
    pub(crate) fn tell(&self, ctx: &Ctx) {
        left_out(&self.expected.left_out).iter().for_each(|it| ctx.progress.warn(it));
        self.sizes.iter().for_each(|it| ctx.progress.warn(&it.warning()));
    }

    pub(crate) fn measure(&self) -> Measure {
        self.measure
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// How many samples there are to choose from.
    pub(crate) fn data_samples(&self) -> usize {
        self.data_samples
    }

    /// The loss of a model with these weights instead of its own.
    pub(crate) fn loss(&self, replaced: &[Replacement]) -> Result<f64, Error> {
        let mut candidate = self.session(&with(self.m, replaced), false)?;
        Ok(loss(&self.compare(&mut *candidate, &self.fed)?, self.measure))
    }

    /// The loss of another model with the same inputs and outputs, run as it will be run, on so
    /// many samples at most.
    pub(crate) fn loss_of(&self, model: &Model, samples: usize) -> Result<f64, Error> {
        let batches = &self.fed[..samples.min(self.fed.len())];
        let mut candidate = self.session(model, true)?;
        Ok(loss(&self.compare(&mut *candidate, batches)?, self.measure))
    }

    /// How another model with the same inputs and outputs differs, run as it will be run.
    pub(crate) fn compare_model(&self, model: &Model) -> Result<Comparison, Error> {
        let (batches, sessions) = (&self.fed, self.sessions(model, true)?);
        ahead(sessions, batches.len(), &run_on(batches), |it| self.compare(it, batches))
    }

    /// The samples that are judged on, one by one.
    pub(crate) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The loss that a comparison shows.
    pub(crate) fn loss_in(&self, comparison: &Comparison) -> f64 {
        loss(comparison, self.measure)
    }

    /// How what a session says differs from the float model's outputs.
    pub(crate) fn compare_session(
        &self,
        mut candidate: Box<dyn Session + '_>,
    ) -> Result<Comparison, Error> {
        self.compare(&mut *candidate, &self.fed)
    }

    /// The samples as a model takes them that [`Evaluator::pinned`] gave.
    pub(crate) fn fed(&self) -> &[Batch] {
        &self.fed
    }

    /// The model as it can be compared: sizes that depend on numbers are those of the float model.
    pub(crate) fn pinned<'m>(&self, model: &'m Model) -> Cow<'m, Model> {
        match &self.sizes {
            Some(sizes) => Cow::Owned(sizes.pinned(model).model),
            None => Cow::Borrowed(model),
        }
    }

    /// `batches` are the first ones.
    fn compare(&self, candidate: &mut dyn Session, batches: &[Batch]) -> Result<Comparison, Error> {
        let mut reference = Replay { inputs: &self.inputs, expected: &self.expected, next: 0 };
        let mut batches = batches.iter().cloned().map(Ok);
        let (splits, sizes) = (self.splits.clone(), self.sizes.clone());
        let options = CompareOptions { splits, sizes, ..CompareOptions::default() };
        let silent = Ctx::silent();
        Ok(compare(&mut reference, candidate, &mut batches, &options, &silent)?)
    }

    fn session(&self, model: &Model, optimize: bool) -> Result<Box<dyn Session>, Error> {
        self.open(self.pinned(model).into_owned(), optimize)
    }

    fn open(&self, mut model: Model, optimize: bool) -> Result<Box<dyn Session>, Error> {
        model.remove_all_dead();
        let exact = self.exact;
        let options =
            SessionOptions { threads: 1, optimize, lean: true, exact, ..Default::default() };
        open::session(&model, self.files, "the quantized model", &options, &self.runtime)
    }

    /// Runs the float model.
    fn expect(&mut self) -> Result<(), Error> {
        let telling = self.sizes.as_ref().map_or_else(|| self.m.clone(), |it| it.telling());
        self.splits = splits(&telling);
        let sessions = self.several(|| self.open(telling.clone(), false))?;
        let (batches, kept) = (&self.batches, &self.expected.kept);
        let mut fed = Vec::new();
        let (names, left_out) = ahead(sessions, batches.len(), &run_on(batches), |session| {
            let mut names = Vec::new();
            for (at, batch) in batches.iter().enumerate() {
                let mut outputs = session.run(&[])?;
                fed.extend(self.sizes.as_ref().map(|it| it.tell(&mut outputs, batch)));
                let tensors: Vec<&Tensor> = outputs.iter().map(|it| &it.1).collect();
                kept.store(at, &tensors).map_err(CalibrateError::Scratch)?;
                names = outputs.into_iter().map(|it| it.0).collect();
            }
            Ok::<_, Error>((names, session.left_out().to_vec()))
        })?;
        (self.expected.names, self.expected.left_out) = (names, left_out);
        if self.sizes.is_some() {
            self.fed = fed;
        }
        Ok(())
    }

    /// A session for each sample that runs at the same time.
    fn sessions(&self, model: &Model, optimize: bool) -> Result<Vec<Box<dyn Session>>, Error> {
        let model = self.pinned(model);
        self.several(|| self.open(model.clone().into_owned(), optimize))
    }

    fn several(
        &self,
        open: impl Fn() -> Result<Box<dyn Session>, Error>,
    ) -> Result<Vec<Box<dyn Session>>, Error> {
        let count = threads(self.threads).min(self.batches.len().max(1));
        (0..count).map(|_| open()).collect()
    }
}

/// Runs one of the batches.
fn run_on(
    batches: &[Batch],
) -> impl Fn(&mut dyn Session, usize) -> Result<Outputs, EngineError> + Sync + '_ {
    |session, at| {
        let names: Vec<String> = session.inputs().iter().map(|it| it.name.clone()).collect();
        let given = names.iter().filter_map(|it| Some((&**it, batches[at].get(it)?)));
        session.run(&given.collect::<Vec<_>>())
    }
}

/// The model with these weights instead of its own.
pub(crate) fn with(model: &Model, replaced: &[Replacement]) -> Model {
    let mut model = model.clone();
    calibrate::replace(&mut model, replaced);
    model
}

/// The samples with the smallest digests: the same ones in whatever order the data comes.
fn some(batches: Batches, count: usize) -> Result<Vec<Batch>, Error> {
    let mut chosen: BTreeMap<[u8; 32], Batch> = BTreeMap::new();
    for batch in batches {
        let batch = batch?;
        chosen.insert(digest(&batch)?, batch);
        if chosen.len() > count {
            chosen.pop_last();
        }
    }
    Ok(chosen.into_values().collect())
}

/// Of what a batch holds, wherever it comes from.
pub(crate) fn digest(batch: &Batch) -> Result<[u8; 32], TensorError> {
    let mut hash = Sha256::new();
    for (name, tensor) in batch {
        hash.update(name);
        tensor.shape.iter().for_each(|it| hash.update(it.to_le_bytes()));
        hash.update(tensor.bytes()?);
    }
    Ok(hash.finalize().into())
}

/// A caching session: what the float model says of one batch after the other is not computed again.
struct Replay<'a> {
    inputs: &'a [IoInfo],
    expected: &'a Expected,
    next: usize,
}

impl Session for Replay<'_> {
    fn inputs(&self) -> &[IoInfo] {
        self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &[]
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.expected.left_out
    }

    fn run(&mut self, _: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        let Expected { names, kept, .. } = self.expected;
        let tensors = kept.load(self.next).map_err(EngineError::Kept)?;
        self.next += 1;
        Ok(names.iter().cloned().zip(tensors).collect())
    }
}

fn loss(it: &Comparison, measure: Measure) -> f64 {
    let joined: BTreeSet<&str> =
        it.outputs.values().filter_map(|it| Some(&*it.part.as_ref()?.output)).collect();
    // Instead of an output that joins several quantities, its parts count.
    let outputs =
        it.outputs.iter().filter(|(name, it)| it.kl.is_some() || !joined.contains(&***name));
    let losses = outputs.map(|it| it.1).filter_map(|it| match measure {
        // Rounding makes the divergence of nearly equal outputs less than nothing.
        Measure::Kl => Some(it.kl?.mean.unwrap_or(f64::MAX).max(0.0)),
        Measure::NoiseToSignal if it.exact || it.equal.is_some() => None,
        Measure::NoiseToSignal => Some(it.sqnr_db.map_or(f64::MAX, |db| 10f64.powf(-db / 10.0))),
    });
    losses.sum()
}
