//! What replaced weights do to a model's outputs, on a few samples.

use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::{Calibration, Error, Planned, Unit};
use crate::{
    calibrate::{self, Batch, DataOptions, Replacement},
    ctx::Ctx,
    engine::{self, EngineError, IoInfo, RuntimeOptions, Session, SessionOptions},
    ir::Model,
    onnx::{self, Attached, Files},
    pipeline::calibrate::replacement,
    report::{CompareOptions, Comparison, compare},
    tensor::Tensor,
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

/// Samples are few: a loss is a mean over all their tokens, and weights are many.
const SAMPLES: usize = 16;

/// The float model, its outputs, and what they are computed from.
pub(super) struct Judge<'a> {
    m: &'a Model,
    files: &'a Files,
    runtime: RuntimeOptions<'a>,
    batches: Vec<Batch>,
    samples: usize,
    inputs: Vec<IoInfo>,
    /// For each batch; `None` if they are too large to keep.
    expected: Option<Vec<Outputs>>,
    measure: Measure,
}

type Outputs = Vec<(String, Tensor)>;

impl<'a> Judge<'a> {
    pub fn new(
        planned: &'a Planned,
        data: &Path,
        calibration: &Calibration<'a>,
    ) -> Result<Judge<'a>, Error> {
        let (m, files) = (&planned.model, &planned.files);
        let inputs = calibrate::model_inputs(m);
        let samples = calibration.options.samples.unwrap_or(SAMPLES).min(SAMPLES);
        let options = DataOptions { samples: Some(samples), ..calibration.options.clone() };
        let batches = calibrate::open(data, &inputs, &options)?;
        let samples = batches.samples();
        let batches: Vec<Batch> = batches.collect::<Result<_, _>>()?;
        let runtime = calibration.runtime.clone();
        let (expected, measure) = (None, Measure::NoiseToSignal);
        let mut judge = Judge { m, files, runtime, batches, samples, inputs, expected, measure };
        judge.expected = judge.expect(calibration.memory / 4)?;
        let same = judge.compare(&[], &judge.batches[..1])?;
        if same.outputs.values().any(|it| it.kl.is_some()) {
            judge.measure = Measure::Kl;
        }
        Ok(judge)
    }

    pub fn measure(&self) -> Measure {
        self.measure
    }

    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The loss of a model with these weights instead of its own.
    pub fn loss(&self, replaced: &[Replacement]) -> Result<f64, Error> {
        Ok(loss(&self.compare(replaced, &self.batches)?, self.measure))
    }

    fn compare(&self, replaced: &[Replacement], batches: &[Batch]) -> Result<Comparison, Error> {
        let mut candidate = self.session(replaced)?;
        let mut reference: Box<dyn Session + '_> = match &self.expected {
            Some(outputs) => Box::new(Replay { inputs: &self.inputs, outputs: outputs.iter() }),
            None => self.session(&[])?,
        };
        let mut batches = batches.iter().cloned().map(Ok);
        let options = CompareOptions::default();
        let silent = Ctx::silent();
        Ok(compare(&mut *reference, &mut *candidate, &mut batches, &options, &silent)?)
    }

    fn session(&self, replaced: &[Replacement]) -> Result<Box<dyn Session>, Error> {
        let mut model = self.m.clone();
        for it in replaced {
            let constant = model.add_constant(model.main, "replaced", it.tensor.clone());
            model.set_input(it.node, it.index, Some(constant));
        }
        model.remove_all_dead();
        let attached = onnx::attach(&model, self.files)?;
        let options =
            SessionOptions { threads: 1, optimize: false, lean: true, ..Default::default() };
        let folder = Some(Attached::folder());
        Ok(engine::open_bytes(&attached.graph, folder, &options, &self.runtime)?)
    }

    /// The float model's outputs, if `room` bytes hold them.
    fn expect(&self, room: u64) -> Result<Option<Vec<Outputs>>, Error> {
        let mut session = self.session(&[])?;
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

/// A session that says again what it has said before, batch after batch.
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

/// For each unit, the way that was measured and what it loses.
pub(super) fn probe(
    judge: &Judge,
    m: &Model,
    units: &[Unit],
    ctx: &Ctx,
) -> Result<Vec<(usize, f64)>, Error> {
    ctx.progress.start("measure", units.len() as u64);
    let measured = units.par_iter().map(|unit| {
        let probe = unit.probe();
        let way = &unit.ways[probe];
        let sources = way.sources.iter().cloned();
        let replaced = way.plans.iter().zip(sources).map(|(plan, it)| replacement(m, plan, it));
        let loss = judge.loss(&replaced.collect::<Vec<_>>())?;
        ctx.progress.step(1);
        Ok((probe, loss))
    });
    let measured = measured.collect::<Result<Vec<_>, Error>>()?;
    ctx.progress.done(&format!("{} weights on {} samples", units.len(), judge.samples()));
    Ok(measured)
}
