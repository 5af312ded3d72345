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

/// Multiplications that all measurements together may take: less than a minute of two cores.
const AFFORDABLE: u64 = 1_500_000_000_000;
/// Samples for each: a loss is a mean over all their tokens or pixels. Large models make do with few.
const SAMPLES: [usize; 2] = [8, 2];
/// A model that allows fewer runs for each kind of layer is judged by the errors at its nodes.
const RUNS_PER_KIND: u64 = 4;

/// What measuring may take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Effort {
    /// For each run.
    pub samples: usize,
    pub runs: u64,
    /// Multiplications of one sample.
    pub sample: u64,
}

impl Effort {
    /// `None`: even too little is too much. `samples` are those that the layers' rows were counted on.
    pub(super) fn of(m: &Model, layers: &[Layer], samples: u64) -> Option<Effort> {
        let elements = |it: &SitePlan| m.constant(it.site.weight).map_or(0, |it| it.numel() as u64);
        let weights = |layer: &Layer| -> u64 {
            let quantized = layer.candidates.iter().find(|it| it.is_quantized());
            quantized.iter().flat_map(|it| it.plans.iter().flatten()).map(elements).sum()
        };
        let all: u64 = layers.iter().map(|it| weights(it).saturating_mul(it.rows)).sum();
        let sample = (all / samples.max(1)).max(1);
        let runs = |samples: usize| AFFORDABLE / sample.saturating_mul(samples as u64);
        let effort = |samples: usize| Effort { samples, runs: runs(samples), sample };
        let enough = RUNS_PER_KIND * kinds(layers).len() as u64;
        let many = Some(effort(SAMPLES[0])).filter(|it| it.suffices_for_each(layers));
        let few = || SAMPLES.into_iter().skip(1).map(effort).find(|it| it.runs >= enough);
        many.or_else(few)
    }

    /// Whether each candidate of each layer can be measured by itself.
    pub(super) fn suffices_for_each(self, layers: &[Layer]) -> bool {
        self.runs >= layers.iter().map(|it| it.candidates.len() as u64).sum()
    }

    /// How many whole models may be run on `samples` samples in a third of that.
    pub(super) fn models(self, samples: usize) -> usize {
        (AFFORDABLE / 3 / self.sample.saturating_mul(samples.max(1) as u64)) as usize
    }
}

/// Layers whose losses come to so little of the sum of all are judged by their fastest candidate
/// alone.
const NEGLIGIBLE: f64 = 0.03;

/// Layers that are measured together.
struct Group {
    layers: Vec<usize>,
    /// Of the candidates that were measured, the fastest first.
    losses: Vec<f64>,
}

impl Group {
    fn loss(&self) -> f64 {
        self.losses.first().copied().unwrap_or_default()
    }

    /// The first half of the layers, and the others.
    fn halves(&self) -> [Group; 2] {
        let (a, b) = self.layers.split_at(self.layers.len() / 2);
        [a, b].map(|it| Group { layers: it.to_vec(), losses: Vec::new() })
    }
}

/// Measures the losses of the candidates, the fastest first, until one loses next to nothing. What
/// is not measured loses in proportion to the errors at its nodes; what stays as it is, nothing.
///
/// Where there is no time to measure each layer by itself, layers that are alike but for their
/// place are measured together, and those groups are halved again and again that lose the most. Within
/// a group, layers lose in proportion to the errors at their nodes.
pub(super) fn measure(
    ranged: Ranged<'_>,
    layers: &mut [Layer],
    evaluator: &Evaluator,
    effort: Effort,
    ctx: &Ctx,
) -> Result<(), Error> {
    ctx.progress.start("measure", 0);
    let meter = Meter { ranged, layers, evaluator, samples: effort.samples };
    let (mut groups, mut runs) = meter.groups(effort)?;
    let losses: Vec<f64> = groups.iter().map(Group::loss).collect();
    let wanted = significant(&losses);
    let deepest = layers.iter().map(|it| it.candidates.len()).max().unwrap_or(0);
    for candidate in 1..deepest {
        let open = |at: &&usize| {
            let Group { layers: own, losses } = &groups[**at];
            let done = losses.last().is_some_and(|it| *it <= NEGLIGIBLE * losses[0]);
            let next = layers[own[0]].candidates.get(candidate);
            !done && losses.len() == candidate && next.is_some_and(Candidate::is_quantized)
        };
        let open: Vec<usize> = wanted.iter().filter(open).copied().collect();
        let of = |at: &usize| (&*groups[*at].layers, candidate);
        let measured = meter.losses(&open.iter().map(of).collect::<Vec<_>>())?;
        runs += open.len() as u64;
        open.into_iter().zip(measured).for_each(|(at, loss)| groups[at].losses.push(loss));
    }
    let text = format!("{} activations in {} groups, {runs} runs", layers.len(), groups.len());
    groups.iter().for_each(|it| it.tell(layers));
    ctx.progress.done(&text);
    Ok(())
}

impl Group {
    /// Divides the losses among the layers.
    fn tell(&self, layers: &mut [Layer]) {
        let error = |layer: usize, candidate: usize| layers[layer].candidates[candidate].error();
        let share = |layer: usize, candidate: usize| {
            let all: f64 = self.layers.iter().map(|it| error(*it, candidate)).sum();
            if all > 0.0 { error(layer, candidate) / all } else { 1.0 / self.layers.len() as f64 }
        };
        let known = |layer: usize| -> Vec<f64> {
            let losses = self.losses.iter().enumerate();
            losses.map(|(candidate, loss)| loss * share(layer, candidate)).collect()
        };
        let known: Vec<(usize, Vec<f64>)> =
            self.layers.iter().map(|it| (*it, known(*it))).collect();
        known.into_iter().for_each(|(layer, losses)| layers[layer].set_losses(&losses));
    }
}

/// Layers that are alike but for their place.
fn kinds(layers: &[Layer]) -> Vec<Vec<usize>> {
    let mut kinds: Vec<Vec<usize>> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        match kinds.iter_mut().find(|it| layers[it[0]].is_like(layer)) {
            Some(kind) => kind.push(at),
            None => kinds.push(vec![at]),
        }
    }
    kinds
}

struct Meter<'a> {
    ranged: Ranged<'a>,
    layers: &'a [Layer],
    evaluator: &'a Evaluator<'a>,
    samples: usize,
}

impl Meter<'_> {
    /// The groups with the losses of their fastest candidates, and how many runs that took. Some runs
    /// are left for the other candidates.
    fn groups(&self, effort: Effort) -> Result<(Vec<Group>, u64), Error> {
        let candidates = |it: &[usize]| self.layers[it[0]].candidates.len() as u64;
        let alone = (0..self.layers.len()).map(|it| vec![it]).collect::<Vec<_>>();
        let first = if effort.suffices_for_each(self.layers) { alone } else { kinds(self.layers) };
        let group = |layers| Group { layers, losses: Vec::new() };
        let mut groups = self.first_losses(first.into_iter().map(group).collect())?;
        let mut runs = groups.len() as u64;
        loop {
            let rest: u64 = groups.iter().map(|it| candidates(&it.layers) - 1).sum();
            let Some(at) = worst(&groups) else { break };
            // The halves, and one group more to measure the other candidates of.
            if runs + 2 + rest + candidates(&groups[at].layers) - 1 > effort.runs {
                break;
            }
            let halves = self.first_losses(groups[at].halves().into())?;
            groups.splice(at..=at, halves);
            runs += 2;
        }
        Ok((groups, runs))
    }

    fn first_losses(&self, mut groups: Vec<Group>) -> Result<Vec<Group>, Error> {
        let runs: Vec<(&[usize], usize)> = groups.iter().map(|it| (&*it.layers, 0)).collect();
        let losses = self.losses(&runs)?;
        groups.iter_mut().zip(losses).for_each(|(it, loss)| it.losses.push(loss));
        Ok(groups)
    }

    /// What the model loses if only these layers are quantized, by this candidate; for each run.
    fn losses(&self, runs: &[(&[usize], usize)]) -> Result<Vec<f64>, Error> {
        let measured = runs.par_iter().map(|&(layers, candidate)| {
            let plans = layers.iter().flat_map(|it| &self.layers[*it].candidates[candidate].plans);
            let model = built(self.ranged, plans.flatten().cloned().collect())?;
            self.evaluator.loss_of(&model, self.samples)
        });
        measured.collect()
    }
}

/// The group that loses the most, of those that can be halved.
fn worst(groups: &[Group]) -> Option<usize> {
    let all: f64 = groups.iter().map(Group::loss).sum();
    let large = |it: &usize| {
        let group = &groups[*it];
        group.layers.len() > 1 && group.loss() > NEGLIGIBLE * all
    };
    let by_loss = |a: &usize, b: &usize| groups[*a].loss().total_cmp(&groups[*b].loss());
    (0..groups.len()).filter(large).max_by(by_loss)
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

    fn group(layers: std::ops::Range<usize>, loss: f64) -> Group {
        Group { layers: layers.collect(), losses: vec![loss] }
    }

    #[test]
    fn the_group_that_loses_most_is_halved_unless_it_is_one_layer() {
        let groups = [group(0..1, 0.9), group(1..6, 0.5), group(6..8, 0.3)];
        assert_eq!(worst(&groups), Some(1));
        assert_eq!(groups[1].halves().map(|it| it.layers), [vec![1, 2], vec![3, 4, 5]]);
        // What next to nothing is lost by is not worth two runs.
        assert_eq!(worst(&[group(0..1, 0.9), group(1..6, 0.02)]), None);
        assert_eq!(worst(&[group(0..1, 0.9)]), None);
    }

    #[test]
    fn the_smallest_losses_are_left_out_together() {
        assert_eq!(significant(&[0.5, 0.01, 0.3, 0.01]), [0, 2]);
        assert_eq!(significant(&[0.5, 0.02, 0.3, 0.01]), [0, 1, 2]);
        assert!(significant(&[]).is_empty());
    }
}
