//! What the model's outputs lose if one activation alone is quantized.
//!
//! Errors at a node say little of errors at the outputs: a stem of a network matters more than its
//! branches. Powers of small errors add up, so losses that are measured one by one can be summed.

use rayon::prelude::*;

use super::{Planned, built, unit::Unit};
use crate::{
    ctx::Ctx,
    ir::Model,
    pipeline::{Error, judge::Judge},
    quant::plan::SitePlan,
};

/// Multiplications that all measurements together may take: minutes on a small machine. A model
/// for which that is too few is judged by the errors at its nodes.
const AFFORDABLE: u64 = 30_000_000_000_000;

/// `samples` are those that the units' rows were counted on.
pub(super) fn is_affordable(m: &Model, units: &[Unit], samples: u64, judge: &Judge) -> bool {
    let weights = |unit: &Unit| -> u64 {
        let sites = unit.ways.iter().find_map(|it| it.plans.iter().flatten().next().map(|_| it));
        let sites = sites.map_or(&[][..], |it| &it.plans[..]);
        let elements = |it: &SitePlan| m.constant(it.site.weight).map_or(0, |it| it.numel());
        sites.iter().flatten().map(|it| elements(it) as u64).sum()
    };
    let model: u64 = units.iter().map(|it| weights(it).saturating_mul(it.rows)).sum();
    let per_sample = model / samples.max(1);
    let runs = runs(units).len() as u64;
    per_sample.saturating_mul(judge.samples() as u64).saturating_mul(runs) <= AFFORDABLE
}

/// The ways that must be measured: what stays as it is loses nothing.
fn runs(units: &[Unit]) -> Vec<(usize, usize)> {
    let each = units.iter().enumerate().flat_map(|(at, unit)| {
        (0..unit.ways.len()).filter(|it| unit.ways[*it].is_quantized()).map(move |way| (at, way))
    });
    each.collect()
}

/// Measures the loss of every way.
pub(super) fn measure(
    planned: &Planned,
    units: &mut [Unit],
    judge: &Judge,
    ctx: &Ctx,
) -> Result<(), Error> {
    let runs = runs(units);
    ctx.progress.start("measure", runs.len() as u64);
    let losses = runs.par_iter().map(|&(unit, way)| {
        let plans = units[unit].ways[way].plans.iter().flatten().cloned().collect();
        let loss = judge.loss_of(&built(planned, plans)?)?;
        ctx.progress.step(1);
        Ok(loss)
    });
    let losses = losses.collect::<Result<Vec<f64>, Error>>()?;
    units.iter_mut().flat_map(|it| &mut it.ways).for_each(|it| it.loss = 0.0);
    for ((unit, way), loss) in runs.into_iter().zip(losses) {
        units[unit].ways[way].loss = loss;
    }
    let samples = judge.samples();
    ctx.progress.done(&format!("{} activations, one by one, {samples} samples", units.len()));
    Ok(())
}
