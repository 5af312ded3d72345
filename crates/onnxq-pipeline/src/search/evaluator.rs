//! What a changed model does to the outputs, on a few samples.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Error, Inputs, Planned};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    onnx::{self, Attached, Files},
    tensor::{Tensor, TensorError},
};
use onnxq_report::Comparison;
use onnxq_run::{
    calibrate::{self, Replacement},
    compare::{CompareOptions, compare},
    data::{Batch, Batches},
    engine::{EngineError, IoInfo, Runtime, Session, SessionOptions},
};

/// What a loss is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The mean KL divergence from the float model in nats, summed over outputs that are logits.
    Kl,
    /// The power of the error in proportion to the output's, summed over outputs.
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
    batches: Vec<Batch>,
    samples: usize,
    inputs: Vec<IoInfo>,
    /// For each batch; `None` if they are too large to keep.
    expected: Option<Vec<Outputs>>,
    measure: Measure,
}

type Outputs = Vec<(String, Tensor)>;

impl<'a> Evaluator<'a> {
    /// To be asked only if there is data.
    pub(crate) fn new(planned: &'a Planned, inputs: &Inputs<'a>) -> Result<Evaluator<'a>, Error> {
        let (m, files) = (&planned.model, &planned.files);
        let (batches, runtime) = (inputs.batches(m)?, inputs.runtime.clone());
        Evaluator::over(m, files, batches, SAMPLES, inputs.memory / 4, runtime)
    }

    /// On so many batches at most, of one sample unless the model states another number; expected
    /// outputs are kept if `room` bytes hold them.
    pub(crate) fn over(
        m: &'a Model,
        files: &'a Files,
        mut batches: Batches,
        count: usize,
        room: u64,
        runtime: Runtime<'a>,
    ) -> Result<Evaluator<'a>, Error> {
        let inputs = calibrate::model_inputs(m);
        batches.one_by_one();
        let per_batch = batches.batch();
        let batches = some(batches, count)?;
        let samples = batches.len() * per_batch;
        let (expected, measure) = (None, Measure::NoiseToSignal);
        let mut evaluator =
            Evaluator { m, files, runtime, batches, samples, inputs, expected, measure };
        evaluator.expected = evaluator.expect(room)?;
        let same = evaluator.compare(evaluator.session(m, false)?, &evaluator.batches[..1])?;
        if same.outputs.values().any(|it| it.kl.is_some()) {
            evaluator.measure = Measure::Kl;
        }
        Ok(evaluator)
    }

    pub(crate) fn measure(&self) -> Measure {
        self.measure
    }

    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// The loss of a model with these weights instead of its own.
    pub(crate) fn loss(&self, replaced: &[Replacement]) -> Result<f64, Error> {
        let candidate = self.session(&with(self.m, replaced), false)?;
        Ok(loss(&self.compare(candidate, &self.batches)?, self.measure))
    }

    /// The loss of another model with the same inputs and outputs, run as it will be run, on so
    /// many samples at most.
    pub(crate) fn loss_of(&self, model: &Model, samples: usize) -> Result<f64, Error> {
        let batches = &self.batches[..samples.min(self.batches.len())];
        Ok(loss(&self.compare(self.session(model, true)?, batches)?, self.measure))
    }

    /// How another model with the same inputs and outputs differs, run as it will be run.
    pub(crate) fn compare_model(&self, model: &Model) -> Result<Comparison, Error> {
        self.compare(self.session(model, true)?, &self.batches)
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
        candidate: Box<dyn Session + '_>,
    ) -> Result<Comparison, Error> {
        self.compare(candidate, &self.batches)
    }

    fn compare(
        &self,
        mut candidate: Box<dyn Session + '_>,
        batches: &[Batch],
    ) -> Result<Comparison, Error> {
        let mut reference: Box<dyn Session + '_> = match &self.expected {
            Some(outputs) => Box::new(Replay { inputs: &self.inputs, outputs: outputs.iter() }),
            None => self.session(self.m, false)?,
        };
        let mut batches = batches.iter().cloned().map(Ok);
        let options = CompareOptions::default();
        let silent = Ctx::silent();
        Ok(compare(&mut *reference, &mut *candidate, &mut batches, &options, &silent)?)
    }

    fn session(&self, model: &Model, optimize: bool) -> Result<Box<dyn Session>, Error> {
        let mut model = model.clone();
        model.remove_all_dead();
        let attached = onnx::attach(&model, self.files)?;
        let options = SessionOptions { threads: 1, optimize, lean: true, ..Default::default() };
        let folder = Some(Attached::folder());
        Ok(self.runtime.open_bytes(&attached.graph, folder, &options)?)
    }

    /// The float model's outputs, if `room` bytes hold them.
    fn expect(&self, room: u64) -> Result<Option<Vec<Outputs>>, Error> {
        let mut session = self.session(self.m, false)?;
        let (mut list, mut taken) = (Vec::new(), 0);
        for batch in &self.batches {
            let inputs: Vec<(&str, &Tensor)> =
                batch.iter().map(|(name, it)| (name.as_str(), it)).collect();
            let outputs = session.run(&inputs)?;
            taken += outputs.iter().map(|it| it.1.nbytes() as u64).sum::<u64>();
            if taken > room {
                return Ok(None);
            }
            list.push(outputs);
        }
        Ok(Some(list))
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

fn digest(batch: &Batch) -> Result<[u8; 32], TensorError> {
    let mut hash = Sha256::new();
    for (name, tensor) in batch {
        hash.update(name);
        tensor.shape.iter().for_each(|it| hash.update(it.to_le_bytes()));
        hash.update(tensor.bytes()?);
    }
    Ok(hash.finalize().into())
}

/// A caching session: outputs that are known for a batch are not computed again.
struct Replay<'a> {
    inputs: &'a [IoInfo],
    outputs: std::slice::Iter<'a, Outputs>,
}

impl Session for Replay<'_> {
    fn inputs(&self) -> &[IoInfo] {
        self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &[]
    }

    fn run(&mut self, _: &[(&str, &Tensor)]) -> Result<Outputs, EngineError> {
        Ok(self.outputs.next().cloned().unwrap_or_default())
    }
}

fn loss(it: &Comparison, measure: Measure) -> f64 {
    let outputs = it.outputs.values();
    let losses = outputs.filter_map(|it| match measure {
        // Rounding makes the divergence of nearly equal outputs less than nothing.
        Measure::Kl => Some(it.kl?.mean.unwrap_or(f64::MAX).max(0.0)),
        Measure::NoiseToSignal if it.exact || it.equal.is_some() => None,
        Measure::NoiseToSignal => Some(it.sqnr_db.map_or(f64::MAX, |db| 10f64.powf(-db / 10.0))),
    });
    losses.sum()
}
