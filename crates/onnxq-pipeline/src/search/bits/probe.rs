//! What each weight loses if it alone is stored by its coarsest candidates.

use rayon::prelude::*;

use super::{Layer, replacement};
use crate::{Error, search::evaluator::Evaluator};
use onnxq_ir::{Model, ctx::Ctx};

/// For each layer, the candidates that were measured and what they lose.
pub(super) fn probe(
    evaluator: &Evaluator,
    m: &Model,
    layers: &[Layer],
    ctx: &Ctx,
) -> Result<Vec<Vec<(usize, f64)>>, Error> {
    let probes = |(at, layer): (usize, &Layer)| {
        layer.probes().into_iter().map(move |probe| (at, probe)).collect::<Vec<_>>()
    };
    let probes: Vec<(usize, usize)> = layers.iter().enumerate().flat_map(probes).collect();
    ctx.progress.start("measure", probes.len() as u64);
    let measured = probes.par_iter().map(|&(at, probe)| {
        let candidate = &layers[at].candidates[probe];
        let sources = candidate.sources.iter().cloned();
        let replaced =
            candidate.plans.iter().zip(sources).map(|(plan, it)| replacement(m, plan, it));
        let loss = evaluator.loss(&replaced.collect::<Vec<_>>())?;
        ctx.progress.step(1);
        Ok((at, probe, loss))
    });
    let measured = measured.collect::<Result<Vec<_>, Error>>()?;
    let mut of_layers = vec![Vec::new(); layers.len()];
    measured.into_iter().for_each(|(at, probe, loss)| of_layers[at].push((probe, loss)));
    ctx.progress.done(&format!("{} weights on {} samples", layers.len(), evaluator.samples()));
    Ok(of_layers)
}
