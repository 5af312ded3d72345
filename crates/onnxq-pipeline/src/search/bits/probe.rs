//! What each weight loses if it alone is stored in its coarsest way.

use rayon::prelude::*;

use super::{Unit, replacement};
use crate::{Error, search::evaluator::Evaluator};
use onnxq_ir::{Model, ctx::Ctx};

/// For each unit, the way that was measured and what it loses.
pub(super) fn probe(
    evaluator: &Evaluator,
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
        let loss = evaluator.loss(&replaced.collect::<Vec<_>>())?;
        ctx.progress.step(1);
        Ok((probe, loss))
    });
    let measured = measured.collect::<Result<Vec<_>, Error>>()?;
    ctx.progress.done(&format!("{} weights on {} samples", units.len(), evaluator.samples()));
    Ok(measured)
}
