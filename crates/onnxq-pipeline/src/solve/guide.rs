//! What says how much tokens count for guided solvers: gradients of the float model's own losses.

use std::{collections::BTreeMap, sync::Arc};

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::{
    Error, Job, Planned,
    distil::{by_value, unpadded},
};
use onnxq_ir::{Model, ValueId};
use onnxq_numerics::guided::row_weights;
use onnxq_quant::window::Guided;
use onnxq_report::figures::Role;
use onnxq_run::{
    calibrate::{self, Guide, Recorder, Want},
    compare,
    data::{Batch, Batches},
    engine::threads,
};
use onnxq_train::{
    fisher::{Draw, Fisher},
    tape::Tape,
};

/// What guides, and its version: statistics of another are none of these.
const NAME: &str = "fisher/1";

/// Draws of each sample: weights are their mean.
const DRAWS: usize = 2;

/// What statistics say of what guided them; empty if nothing did.
pub(super) fn name(wants: &[Want]) -> String {
    let guided = wants.iter().any(|it| it.guided.is_some());
    if guided { NAME.into() } else { String::new() }
}

/// How much each token of the samples counts for the outputs of these nodes of `planned.model`.
pub(super) fn guide(
    planned: &Planned,
    guided: &[Guided],
    job: &Job,
) -> Result<Option<Arc<Guide>>, Error> {
    let m = &planned.model;
    let mut batches = job.inputs.batches(m)?;
    batches.one_by_one();
    let count = batches.samples();
    job.ctx.progress.start("gradients", count as u64);
    let recorder = Recorder::new(guided.to_vec())?;
    let workers = threads(job.inputs.threads).min(count.max(1));
    let memory = usize::try_from(job.inputs.memory).unwrap_or(usize::MAX) / workers;
    let names = m.graph(m.main).outputs.iter().map(|it| m.value(*it).name.to_string());
    let outputs: Vec<String> = names.filter(|it| !compare::is_cache(it)).collect();
    let watched = guided.iter().map(|it| m.node(it.node).output()).collect();
    let fisher = Fisher::new(m, outputs.clone(), watched, memory);
    let asked = Asked { m, guided, batches: &batches, recorder: &recorder, fisher, outputs };
    let parts: Vec<Result<(), Error>> =
        (0..workers).into_par_iter().map(|worker| asked.some(worker, workers, job)).collect();
    parts.into_iter().collect::<Result<Vec<()>, Error>>()?;
    let nodes = guided.len();
    job.ctx
        .progress
        .done(&format!("{nodes} outputs of nodes, {count} samples, {DRAWS} draws each"));
    Ok(Some(Arc::new(recorder.finish())))
}

/// Samples whose gradients are asked for.
struct Asked<'a> {
    m: &'a Model,
    guided: &'a [Guided],
    batches: &'a Batches,
    recorder: &'a Recorder,
    fisher: Fisher<'a>,
    outputs: Vec<String>,
}

impl Asked<'_> {
    /// Every so manyth sample, beginning with `first`.
    fn some(&self, first: usize, step: usize, job: &Job) -> Result<(), Error> {
        let mut tape = Tape::default();
        for sample in (first..self.batches.samples()).step_by(step) {
            let batch = self.batches.at(sample..sample + 1)?;
            self.sample(sample, &batch, &mut tape)?;
            job.ctx.progress.step(1);
        }
        Ok(())
    }

    fn sample(&self, sample: usize, batch: &Batch, tape: &mut Tape<f32>) -> Result<(), Error> {
        let inputs = by_value(self.m, batch);
        let shapes = self.fisher.shapes(&inputs)?;
        let draws: Vec<Draw> = self
            .outputs
            .iter()
            .zip(&shapes)
            .map(|(name, shape)| draw(name, shape, batch))
            .collect();
        let counts = unpadded(batch)?;
        let mut sums: BTreeMap<ValueId, Vec<f32>> = BTreeMap::new();
        let groups = |value: ValueId| {
            let found = self.guided.iter().find(|it| self.m.node(it.node).output() == value);
            found.map_or(1, |it| it.groups)
        };
        let mut see = |value: ValueId, shape: &[usize], gradient: &[f32]| {
            let n = shape.last().copied().unwrap_or(1);
            let rows = ArrayView2::from_shape((gradient.len() / n.max(1), n), gradient);
            let own = row_weights(rows.expect("rows of n numbers"), groups(value));
            match sums.get_mut(&value) {
                Some(sum) => sum.iter_mut().zip(own).for_each(|(it, more)| *it += more),
                None => drop(sums.insert(value, own)),
            }
        };
        self.fisher.run(&inputs, (&draws, &counts), (DRAWS, sample as u64), tape, &mut see)?;
        let of = |it: &Guided| sums.remove(&self.m.node(it.node).output()).unwrap_or_default();
        let weights: Vec<Vec<f32>> = self.guided.iter().map(of).collect();
        Ok(self.recorder.add(sample, &weights, calibrate::mask(batch)?.as_ref())?)
    }
}

/// How the loss of an output is drawn.
fn draw(name: &str, shape: &[usize], batch: &Batch) -> Draw {
    let width = shape.last().copied().unwrap_or(1);
    match compare::role_of(name, shape, batch) {
        Role::Logits | Role::Classes if width > 1 => Draw::Labels(width),
        _ => Draw::Noise(width),
    }
}
