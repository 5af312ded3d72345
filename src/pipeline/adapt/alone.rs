//! What the model's outputs lose if one activation alone is quantized.
//!
//! Errors at a node say little of errors at the outputs: a stem of a network matters more than its
//! branches. Powers of small errors add up, so losses that are measured one by one can be summed.

use rayon::prelude::*;

use super::{Planned, built, unit::Unit};
use crate::{
    ctx::Ctx,
    pipeline::{Error, judge::Judge},
};

/// Multiplications that all measurements together may take: minutes on a small machine. A model
/// for which that is too few is judged by the errors at its nodes.
const AFFORDABLE: u64 = 30_000_000_000_000;

pub(super) fn is_affordable(planned: &Planned, units: &[Unit], judge: &Judge) -> bool {
    let m = &planned.model;
    let weight = |it: &crate::quant::plan::SitePlan| {
        m.constant(it.site.weight).map_or(0, |it| it.numel()) as u64
    };
    let weights: u64 = planned.plan.sites.iter().map(weight).sum();
    // Each run of the model meets every weight once per row; the widest unit says how many.
    let rows = units.iter().map(|it| it.rows).max().unwrap_or(0);
    let runs: u64 = units.iter().map(|it| it.ways.len() as u64).sum();
    let share = judge.samples() as u64;
    let per_run = weights.saturating_mul(rows / share.max(1)).saturating_mul(share);
    per_run.saturating_mul(runs) <= AFFORDABLE
}

/// Measures the loss of every way.
pub(super) fn measure(
    planned: &Planned,
    units: &mut [Unit],
    judge: &Judge,
    ctx: &Ctx,
) -> Result<(), Error> {
    let runs: Vec<(usize, usize)> = units
        .iter()
        .enumerate()
        .flat_map(|(at, unit)| (0..unit.ways.len()).map(move |way| (at, way)))
        .collect();
    ctx.progress.start("measure", runs.len() as u64);
    let losses = runs.par_iter().map(|&(unit, way)| {
        let plans = units[unit].ways[way].plans.iter().flatten().cloned().collect();
        let loss = judge.loss_of(&built(planned, plans)?)?;
        ctx.progress.step(1);
        Ok(loss)
    });
    let losses = losses.collect::<Result<Vec<f64>, Error>>()?;
    for ((unit, way), loss) in runs.into_iter().zip(losses) {
        units[unit].ways[way].loss = loss;
    }
    let samples = judge.samples();
    ctx.progress.done(&format!("{} activations, one by one, {samples} samples", units.len()));
    Ok(())
}
