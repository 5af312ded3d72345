//! The way to the goal: slower candidates until it is reached, then faster ones wherever it stays so.

use super::{
    Adapter, Unreached, built,
    layer::Layer,
    report::{Measured, Tried},
    sites,
};
use crate::{
    Error,
    search::evaluator::{Evaluator, Measure},
};
use onnxq_ir::ctx::Ctx;
use onnxq_quant::{
    budget::{self, Mix},
    recipe::AdaptGoal,
};

/// Runs whole models and holds them against a goal.
pub(super) struct Judge<'a> {
    pub goal: AdaptGoal,
    pub evaluator: &'a Evaluator<'a>,
}

/// How far predictions of a mix are off, mostly: so many times.
const NEAR: f64 = 1.25;
/// Near enough: what a model may still lose, in proportion to the goal.
const CLOSE: f64 = 0.1;
/// Predictions of losses are off by so many times, at most.
const TRUST: f64 = 2.0;
/// Models that are tried, once the goal is reached, to find what can be faster: at least, and at most.
const RETURNS: (usize, usize) = (3, 40);

impl Judge<'_> {
    fn measure(&self, adapter: &Adapter, picks: &[usize]) -> Result<Measured, Error> {
        let model = built(adapter.ranged, sites(adapter.ranged.planned, adapter.layers, picks))?;
        Ok(Measured::of(&self.evaluator.compare_model(&model)?))
    }
}

/// The mix of the fastest candidates if it is predicted to come near the goal; else one that is
/// predicted to reach it with some room.
fn first(mixes: &[Mix], judge: &Judge) -> usize {
    let (goal, measure) = (judge.goal, judge.evaluator.measure());
    let wanted = match measure {
        Measure::Kl => goal.max_kl,
        Measure::NoiseToSignal => goal.min_sqnr_db.map(|db| 10f64.powf(-db / 10.0)),
    };
    let within = |loss: f64| mixes.iter().position(|it| it.loss <= loss);
    let Some(wanted) = wanted else { return 0 };
    match within(NEAR * wanted) {
        Some(0) => 0,
        _ => within(wanted / NEAR).unwrap_or(mixes.len() - 1),
    }
}

impl Adapter<'_> {
    /// Raises activations until the model reaches the goal, in the order in which they remove the
    /// most loss for their price; then lowers again what did not need it. `models` may be run for that.
    pub(super) fn reach(&mut self, judge: &Judge, models: usize, ctx: &Ctx) -> Result<(), Error> {
        ctx.progress.start("adapt", 0);
        let mixes = budget::mixes(&self.choices);
        let steps: Vec<Vec<usize>> = mixes.iter().map(|it| self.raised(&it.picks)).collect();
        // Mixes grow more accurate: what was tried says on which side the first lies that passes.
        let (mut low, mut high, mut passed) = (0, steps.len(), None);
        while low < high {
            let at = match self.tried.last() {
                // What the budget left, if that may do: many models need no more.
                None => first(&mixes, judge),
                Some(last) => self.next(&mixes[low..high], last, judge.goal) + low,
            };
            match self.attempt(&steps[at], judge)? {
                true => (high, passed) = (at, Some(at)),
                false => low = at + 1,
            }
            // What is left to gain is found by lowering one by one.
            let near =
                high < steps.len() && low < high && mixes[low].loss < NEAR * mixes[high].loss;
            if near || (passed == Some(at) && self.room(judge.goal) < CLOSE) {
                break;
            }
        }
        let last = self.tried.last().map(|it| it.measured);
        let Some(at) = passed else {
            let (measured, goal) = (last.unwrap_or_default().to_string(), judge.goal.to_string());
            return Err(Unreached { measured, goal }.into());
        };
        self.picks = steps[at].clone();
        self.lower(judge, models.clamp(RETURNS.0, RETURNS.1))?;
        let slower = self.count(&self.picks);
        ctx.progress
            .done(&format!("{slower} of {} activations have slower candidates", self.layers.len()));
        Ok(())
    }

    /// Which mix to try next: the first that would do if losses were as far from what is predicted as
    /// they were the last time; every other time a quarter from the ends at least, so that few tries
    /// are enough whatever was predicted.
    fn next(&self, mixes: &[Mix], last: &Tried, goal: AdaptGoal) -> usize {
        let middle = mixes.len() / 2;
        let Some(lost) = last.measured.of_goal(goal) else { return middle };
        let wanted = last.predicted / lost.max(f64::MIN_POSITIVE);
        let at = mixes.iter().position(|it| it.loss <= wanted).unwrap_or(mixes.len() - 1);
        let quarter = mixes.len() / 4;
        if self.tried.len().is_multiple_of(2) {
            at.clamp(quarter, mixes.len() - 1 - quarter)
        } else {
            at
        }
    }

    /// What the model that was measured last may still lose, in proportion to the goal.
    fn room(&self, goal: AdaptGoal) -> f64 {
        let lost = self.tried.last().and_then(|it| it.measured.of_goal(goal));
        lost.map_or(f64::INFINITY, |it| 1.0 - it)
    }

    /// Whether a model with these picks reaches the goal.
    fn attempt(&mut self, picks: &[usize], judge: &Judge) -> Result<bool, Error> {
        let measured = judge.measure(self, picks)?;
        let reached = measured.reaches(judge.goal);
        let predicted = self.predicted(picks);
        tracing::info!("{} raised: predicted {predicted:.3e}, {measured}", self.count(picks));
        self.tried.push(Tried { raised: self.count(picks), predicted, measured, reached });
        Ok(reached)
    }

    /// Gives activations cheaper candidates as long as the goal stays reached: all of them at once that
    /// may fit if that works, else each half by itself, and so on.
    fn lower(&mut self, judge: &Judge, models: usize) -> Result<(), Error> {
        let mut tried: Vec<Vec<bool>> =
            self.layers.iter().map(|it| vec![false; it.candidates.len()]).collect();
        let Some(mut last) = self.tried.iter().rfind(|it| it.reached).copied() else {
            return Ok(());
        };
        let mut failed: Vec<Vec<usize>> = Vec::new();
        let models = self.tried.len() + models;
        loop {
            let cheaper = self.cheaper(&tried, last, judge.goal);
            if cheaper.is_empty() {
                return Ok(());
            }
            let mut sets = vec![cheaper];
            while let Some(set) = sets.pop() {
                if self.tried.len() >= models {
                    return Ok(());
                }
                let mut picks = self.picks.clone();
                set.iter().for_each(|(layer, pick)| picks[*layer] = *pick);
                // Once a first half was lowered, the second brings back what failed as a whole.
                let fails = failed.contains(&picks) || !self.attempt(&picks, judge)?;
                if !fails {
                    self.picks = picks;
                    last = self.tried[self.tried.len() - 1];
                } else if set.len() > 1 {
                    failed.push(picks);
                    let (first, second) = set.split_at(set.len() / 2);
                    sets.extend([second.to_vec(), first.to_vec()]);
                    continue;
                }
                set.iter().for_each(|(layer, pick)| tried[*layer][*pick] = true);
            }
        }
    }

    /// For each activation that has one, the cheapest candidate that is still to be tried; first those
    /// that save the most for what they are predicted to lose. Together they may lose what the goal
    /// leaves, if predictions can be trusted that far.
    fn cheaper(&self, tried: &[Vec<bool>], last: Tried, goal: AdaptGoal) -> Vec<(usize, usize)> {
        let mut list: Vec<(f64, f64, (usize, usize))> = Vec::new();
        for (layer, choices) in self.choices.iter().enumerate() {
            let now = choices[self.picks[layer]];
            let cheaper = |it: &usize| choices[*it].price < now.price && !tried[layer][*it];
            let cheapest = (0..choices.len()).filter(cheaper).min_by_key(|it| choices[*it].price);
            let Some(pick) = cheapest else { continue };
            let saved = (now.price - choices[pick].price) as f64;
            let lost = (choices[pick].loss - now.loss).max(0.0);
            list.push((lost / saved, lost, (layer, pick)));
        }
        list.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        // Losses are predicted in their own unit; what was measured last says what that is worth.
        let lost = last.measured.of_goal(goal).unwrap_or(0.0);
        let unit = last.predicted / lost.max(f64::MIN_POSITIVE);
        let mut room = TRUST * (1.0 - lost) * unit;
        list.retain(|it| {
            let fits = it.1 <= room;
            room -= if fits { it.1 } else { 0.0 };
            fits
        });
        list.into_iter().map(|it| it.2).collect()
    }

    /// For each layer, the more accurate of what it has and what it would get.
    fn raised(&self, picks: &[usize]) -> Vec<usize> {
        let better = |(layer, (a, b)): (&Layer, (&usize, &usize))| {
            if layer.candidates[*b].loss < layer.candidates[*a].loss { *b } else { *a }
        };
        self.layers.iter().zip(self.picks.iter().zip(picks)).map(better).collect()
    }

    /// How many layers have not their fastest candidate.
    fn count(&self, picks: &[usize]) -> usize {
        picks.iter().filter(|it| **it > 0).count()
    }

    fn predicted(&self, picks: &[usize]) -> f64 {
        self.choices.iter().zip(picks).map(|(choices, pick)| choices[*pick].loss).sum()
    }
}
