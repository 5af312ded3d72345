//! How each activation is quantized, decided by what calibration data shows.
//!
//! Every candidate of every activation is measured at its nodes ([`probe`]). A budget of time is
//! spent where it removes the most error; then nodes get slower candidates, those with the largest
//! errors first, until the whole model, run as it will be run, reaches the goal.

mod alone;
mod bias;
mod copies;
mod layer;
mod probe;
mod report;

use self::layer::Layer;
pub use self::report::{Adapted, Choosing, Correction, Measured, Tried};
use crate::{
    Error, Job, Planned,
    decide::Deciding,
    lower::finish,
    ranges::{self, Ranged},
    search::evaluator::Evaluator,
};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::{Code, Diagnostic},
};
use onnxq_quant::{
    budget::{self, Choice},
    insert,
    plan::{Plan, SitePlan},
    recipe::{AdaptGoal, AdaptSpec},
    sources::Sources,
};

#[derive(Debug, thiserror::Error)]
#[error(
    "the goal is out of reach: with every activation at its most accurate candidate the model has \
     {measured} on the calibration data, not {goal}"
)]
pub struct Unreached {
    pub measured: String,
    pub goal: String,
}

impl Diagnostic for Unreached {
    fn code(&self) -> Code {
        Code::E617
    }

    fn hint(&self) -> Option<String> {
        Some(
            "add a more accurate candidate under `adapt.candidates`, or ask for less under `adapt.goal`".into(),
        )
    }
}

/// Replaces activations of the plan by those that the data recommends, if the recipe leaves
/// something to choose and there is data.
pub(crate) fn choose(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let Job { inputs, ctx, .. } = *job;
    let Some(spec) = job.recipe.adapt.as_ref().filter(|_| inputs.data.is_some()) else {
        return Ok(deciding);
    };
    let planned = &deciding.planned;
    let mut layers = layer::find(&planned.model, &planned.plan.sites, spec);
    let all = layers.iter().flat_map(|it| &it.candidates).flat_map(|it| it.plans.iter().flatten());
    deciding.measured = ranges::collect(planned, all.cloned().collect(), inputs, ctx)?;
    if layers.is_empty() && spec.goal.is_none() {
        return Ok(deciding);
    }
    let ranged = deciding.ranged();
    let samples = probe::measure(ranged, &mut layers, inputs, ctx)?;
    let evaluator = Evaluator::new(ranged.planned, inputs)?;
    let alone = alone::is_affordable(&ranged.planned.model, &layers, samples);
    if alone {
        alone::measure(ranged, &mut layers, &evaluator, ctx)?;
    }
    let mut adapter = Adapter::new(ranged, spec, &layers, samples);
    adapter.spend();
    adapter.limit();
    if let Some(goal) = spec.goal {
        adapter.reach(goal, &evaluator, ctx)?;
    }
    let Adapter { picks, tried, .. } = adapter;
    let measure = alone.then_some(evaluator.measure());
    let adapted = Adapted::new(ranged, spec, &layers, &picks, measure, tried);
    let kept = report::kept(ranged, &layers, &picks);
    let sites = sites(ranged.planned, &layers, &picks);
    drop(evaluator);
    deciding.planned.plan.sites = sites;
    deciding.planned.plan.kept.extend(kept);
    deciding.adapted = Some(adapted);
    Ok(deciding)
}

/// Corrects biases for what the plan adds on average, its schemes being final.
pub(crate) fn correct(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let wanted = job.recipe.adapt.as_ref().is_some_and(|it| it.bias_correction);
    if !wanted || deciding.adapted.is_none() {
        return Ok(deciding);
    }
    let corrected = bias::correct(deciding.ranged(), job.inputs, job.ctx)?;
    let Some((correction, model)) = corrected else { return Ok(deciding) };
    if let Some(adapted) = &mut deciding.adapted {
        adapted.bias_correction = Some(correction);
    }
    if let Some(model) = model {
        deciding.planned.model = model;
    }
    Ok(deciding)
}

struct Adapter<'a> {
    ranged: Ranged<'a>,
    spec: &'a AdaptSpec,
    layers: &'a [Layer],
    choices: Vec<Vec<Choice>>,
    /// For each layer, an index into its candidates.
    picks: Vec<usize>,
    tried: Vec<Tried>,
}

impl<'a> Adapter<'a> {
    fn new(
        ranged: Ranged<'a>,
        spec: &'a AdaptSpec,
        layers: &'a [Layer],
        samples: u64,
    ) -> Adapter<'a> {
        let choices = layers.iter().map(|it| it.choices(samples)).collect();
        let picks = vec![0; layers.len()];
        Adapter { ranged, spec, layers, choices, picks, tried: Vec::new() }
    }

    /// Spends the budget where it removes the most error.
    fn spend(&mut self) {
        let least: u64 = self.choices.iter().map(|it| it[0].price).sum();
        let time: u64 = self.layers.iter().map(|it| it.candidates[0].time * it.rows).sum();
        let budget = least + (time as f64 * self.spec.budget.unwrap_or(0.0)) as u64;
        if let Some(mix) = budget::within(&self.choices, budget) {
            self.picks = mix.picks;
        }
    }

    /// Raises what is further off than the recipe allows.
    fn limit(&mut self) {
        let Some(limit) = self.spec.max_error else { return };
        for (layer, pick) in self.layers.iter().zip(&mut self.picks) {
            if layer.candidates[*pick].worst().sqrt() > limit {
                *pick = layer.within(limit);
            }
        }
    }

    /// Raises activations until the model reaches the goal: the fewest of them, in the order in
    /// which they remove the most error for their time.
    fn reach(&mut self, goal: AdaptGoal, evaluator: &Evaluator, ctx: &Ctx) -> Result<(), Error> {
        let mixes = budget::mixes(&self.choices);
        let steps: Vec<Vec<usize>> = mixes.iter().map(|it| self.raised(&it.picks)).collect();
        ctx.progress.start("adapt", 0);
        // Mixes grow more accurate, so the first that passes is found by halving.
        let (mut low, mut high, mut passed) = (0, steps.len(), None);
        while low < high {
            // The first try is what the budget left: most models need no more.
            let at = if self.tried.is_empty() { 0 } else { (low + high) / 2 };
            let measured = self.measure(&steps[at], evaluator)?;
            let reached = measured.reaches(goal);
            self.tried.push(Tried { raised: self.count(&steps[at]), measured, reached });
            match reached {
                true => (high, passed) = (at, Some(at)),
                false => low = at + 1,
            }
        }
        let last = self.tried.last().map(|it| it.measured);
        let Some(at) = passed else {
            let measured = last.unwrap_or_default().to_string();
            return Err(Unreached { measured, goal: goal.to_string() }.into());
        };
        self.picks = steps[at].clone();
        let slower = self.count(&self.picks);
        ctx.progress
            .done(&format!("{slower} of {} activations have slower candidates", self.layers.len()));
        Ok(())
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

    fn measure(&self, picks: &[usize], evaluator: &Evaluator) -> Result<Measured, Error> {
        let model = built(self.ranged, sites(self.ranged.planned, self.layers, picks))?;
        Ok(Measured::of(&evaluator.compare_model(&model)?))
    }
}

/// The plan's sites with what the layers chose.
fn sites(planned: &Planned, layers: &[Layer], picks: &[usize]) -> Vec<SitePlan> {
    let mut sites: Vec<Option<SitePlan>> = planned.plan.sites.iter().cloned().map(Some).collect();
    for (layer, pick) in layers.iter().zip(picks) {
        for (at, plan) in layer.sites.iter().zip(&layer.candidates[*pick].plans) {
            sites[*at] = plan.clone();
        }
    }
    sites.into_iter().flatten().collect()
}

/// The model as it would be written with these sites.
fn built(ranged: Ranged<'_>, sites: Vec<SitePlan>) -> Result<Model, Error> {
    built_of(ranged.planned.model.clone(), ranged, sites)
}

/// The same of a changed model.
fn built_of(mut model: Model, ranged: Ranged<'_>, sites: Vec<SitePlan>) -> Result<Model, Error> {
    let mut plan = Plan { sites, region: ranged.planned.plan.region.clone(), ..Plan::default() };
    plan.ranges = ranged.measured.of(&model, &plan);
    insert::quantize(&mut model, &plan, &mut Sources::default());
    finish(&mut model, &plan.sites, &Ctx::silent())?;
    Ok(model)
}
