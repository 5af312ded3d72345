//! What each weight loses if it alone is stored by its coarsest candidate.

use rayon::prelude::*;

use super::{Layer, replacement};
use crate::{Error, search::evaluator::Evaluator};
use onnxq_ir::{Model, ctx::Ctx};

/// For each layer, the candidate that was measured and what it loses.
pub(super) fn probe(
    evaluator: &Evaluator,
    m: &Model,
    layers: &[Layer],
    ctx: &Ctx,
) -> Result<Vec<(usize, f64)>, Error> {
    ctx.progress.start("measure", layers.len() as u64);
    let measured = layers.par_iter().map(|layer| {
        let probe = layer.probe();
        let candidate = &layer.candidates[probe];
        let sources = candidate.sources.iter().cloned();
        let replaced =
            candidate.plans.iter().zip(sources).map(|(plan, it)| replacement(m, plan, it));
        let loss = evaluator.loss(&replaced.collect::<Vec<_>>())?;
        ctx.progress.step(1);
        Ok((probe, loss))
    });
    let measured = measured.collect::<Result<Vec<_>, Error>>()?;
    ctx.progress.done(&format!("{} weights on {} samples", layers.len(), evaluator.samples()));
    Ok(measured)
}
