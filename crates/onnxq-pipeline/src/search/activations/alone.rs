//! What the model's outputs lose if one activation alone is quantized.
//!
//! Errors at a node say little of errors at the outputs: a stem of a network matters more than its
//! branches. Powers of small errors add up, so losses that are measured one by one can be summed.

use rayon::prelude::*;

use super::{
    built,
    layer::{Candidate, Layer},
};
use crate::{Error, ranges::Ranged, search::evaluator::Evaluator};
use onnxq_ir::{Model, ctx::Ctx};
use onnxq_quant::plan::SitePlan;

/// Multiplications that all measurements together may take: minutes on a small machine. A model
/// for which that is too few is judged by the errors at its nodes.
const AFFORDABLE: u64 = 30_000_000_000_000;
/// Samples for each: a loss is a mean over all their tokens or pixels.
const SAMPLES: usize = 8;

/// `samples` are those that the layers' rows were counted on.
pub(super) fn is_affordable(m: &Model, layers: &[Layer], samples: u64) -> bool {
    let elements = |it: &SitePlan| m.constant(it.site.weight).map_or(0, |it| it.numel() as u64);
    let weights = |layer: &Layer| -> u64 {
        let quantized = layer.candidates.iter().find(|it| it.is_quantized());
        quantized.iter().flat_map(|it| it.plans.iter().flatten()).map(elements).sum()
    };
    let model: u64 = layers.iter().map(|it| weights(it).saturating_mul(it.rows)).sum();
    let per_sample = model / samples.max(1);
    let runs: u64 = layers.iter().map(|it| it.candidates.len() as u64).sum();
    per_sample.saturating_mul(SAMPLES as u64).saturating_mul(runs) <= AFFORDABLE
}

/// Layers whose losses come to so little of the sum of all are judged by their fastest candidate
/// alone.
const NEGLIGIBLE: f64 = 0.03;

/// Measures the losses of the candidates, the fastest first, until one loses next to nothing. What
/// is not measured loses in proportion to the errors at its nodes; what stays as it is, nothing.
pub(super) fn measure(
    ranged: Ranged<'_>,
    layers: &mut [Layer],
    evaluator: &Evaluator,
    ctx: &Ctx,
) -> Result<(), Error> {
    ctx.progress.start("measure", 0);
    let first = losses(
        ranged,
        layers,
        evaluator,
        &(0..layers.len()).map(|at| (at, 0)).collect::<Vec<_>>(),
    )?;
    let mut known: Vec<Vec<f64>> = first.iter().map(|it| vec![*it]).collect();
    let wanted = significant(&first);
    let deepest = layers.iter().map(|it| it.candidates.len()).max().unwrap_or(0);
    for candidate in 1..deepest {
        let open = |at: &&usize| {
            let layer = &layers[**at];
            let done = known[**at].last().is_some_and(|it| *it <= NEGLIGIBLE * known[**at][0]);
            !done && layer.candidates.get(candidate).is_some_and(Candidate::is_quantized)
        };
        let runs: Vec<(usize, usize)> =
            wanted.iter().filter(open).map(|at| (*at, candidate)).collect();
        for (run, loss) in runs.iter().zip(losses(ranged, layers, evaluator, &runs)?) {
            known[run.0].push(loss);
        }
    }
    for (layer, known) in layers.iter_mut().zip(&known) {
        layer.set_losses(known);
    }
    let runs: usize = known.iter().map(Vec::len).sum();
    ctx.progress.done(&format!("{} activations, {runs} candidates one by one", layers.len()));
    Ok(())
}

/// What the model loses if only this layer is quantized, by this candidate; for each run.
fn losses(
    ranged: Ranged<'_>,
    layers: &[Layer],
    evaluator: &Evaluator,
    runs: &[(usize, usize)],
) -> Result<Vec<f64>, Error> {
    let measured = runs.par_iter().map(|&(layer, candidate)| {
        let plans = layers[layer].candidates[candidate].plans.iter().flatten().cloned().collect();
        evaluator.loss_of(&built(ranged, plans)?, SAMPLES)
    });
    measured.collect()
}

/// Indices of all but the smallest, which come to next to nothing together.
fn significant(losses: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]));
    let room = NEGLIGIBLE * losses.iter().sum::<f64>();
    let mut sum = 0.0;
    order.retain(|it| {
        sum += losses[*it];
        sum > room
    });
    order.sort();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_losses_are_left_out_together() {
        assert_eq!(significant(&[0.5, 0.01, 0.3, 0.01]), [0, 2]);
        assert_eq!(significant(&[0.5, 0.02, 0.3, 0.01]), [0, 1, 2]);
        assert!(significant(&[]).is_empty());
    }
}
