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
mod reach;
mod report;

use std::sync::Mutex;

pub use self::report::{Adapted, Choosing, Correction, Measured, Tried};
use self::{alone::Effort, layer::Layer, reach::Judge};
use crate::{
    Error, Job, Planned,
    decide::Deciding,
    lower::finish,
    ranges::{self, Observing, Ranged},
    search::evaluator::Evaluator,
    solve,
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
    recipe::AdaptSpec,
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
    let observing = ranges::observing(planned, all.cloned().collect(), inputs)?;
    learn(&mut deciding, observing, !layers.is_empty(), job)?;
    if layers.is_empty() && spec.goal.is_none() {
        return Ok(deciding);
    }
    let ranged = deciding.ranged();
    solve_rest(ranged, &layers, ctx)?;
    let evaluator = Evaluator::new(ranged.planned, inputs)?.on_target(job.recipe);
    evaluator.tell(ctx);
    let (samples, effort) = errors(ranged, &mut layers, &evaluator, job)?;
    if let Some(effort) = effort {
        alone::measure(ranged, &mut layers, &evaluator, effort, ctx)?;
    }
    let mut adapter = Adapter::new(ranged, spec, &layers, samples as u64);
    adapter.spend();
    adapter.limit();
    if let Some(goal) = spec.goal {
        let models = effort.map_or(0, |it| it.models(evaluator.samples()));
        let judge = Judge { goal, evaluator: &evaluator };
        adapter.reach(&judge, models, ctx)?;
    }
    let Adapter { picks, tried, choices, .. } = adapter;
    let measure = effort.map(|_| evaluator.measure());
    let adapted = Adapted::new(ranged, spec, &layers, &picks, measure, tried);
    let kept = report::kept(ranged, &layers, &choices, &picks);
    let sites = sites(ranged.planned, &layers, &picks);
    drop(evaluator);
    if is_sequential(job) {
        deciding.solved = Mutex::default();
    }
    deciding.planned.plan.sites = sites;
    deciding.planned.plan.kept.extend(kept);
    deciding.adapted = Some(adapted);
    Ok(deciding)
}

/// In sequential mode weights depend on what is chosen, so others stand for them while models are
/// measured.
fn is_sequential(job: &Job) -> bool {
    job.recipe.calibration.unwrap_or_default().sequential
}

/// Finds the ranges and, if there is anything to choose, solves the weights, in one pass over the data
/// where memory allows.
fn learn(
    deciding: &mut Deciding,
    mut observing: Observing,
    choosing: bool,
    job: &Job,
) -> Result<(), Error> {
    let mut seen = false;
    if choosing && !is_sequential(job) {
        let (planned, others) = (&mut deciding.planned, observing.targets());
        let solved = solve::solve(planned, Sources::default(), others, job)?;
        (deciding.solved, seen) = (solved.0.into(), solved.1);
    }
    if !seen {
        let targets = observing.targets();
        ranges::observe_targets(&deciding.planned, targets, job.inputs, job.ctx)?;
    }
    deciding.measured = observing.ranges();
    Ok(())
}

/// Samples that say how large a model is.
const FIRST: usize = 2;

/// Measures the errors of all candidates at their nodes: on all samples that losses are measured on,
/// or few if the model is large. Returns how many, and what measuring losses may take.
fn errors(
    ranged: Ranged<'_>,
    layers: &mut [Layer],
    evaluator: &Evaluator,
    Job { inputs, ctx, .. }: &Job,
) -> Result<(usize, Option<Effort>), Error> {
    let (all, m) = (evaluator.batches(), &ranged.planned.model);
    let few = FIRST.min(all.len());
    probe::measure(ranged, layers, &all[..few], inputs, ctx)?;
    let effort = Effort::of(m, layers, few as u64);
    if !effort.is_some_and(|it| it.suffices_for_each(layers)) {
        return Ok((few, effort));
    }
    probe::measure(ranged, layers, all, inputs, ctx)?;
    Ok((all.len(), Effort::of(m, layers, all.len() as u64)))
}

/// Solves the weights that are left once for all models that will be measured.
fn solve_rest(ranged: Ranged<'_>, layers: &[Layer], ctx: &Ctx) -> Result<(), Error> {
    let m = &ranged.planned.model;
    let mut sources = ranged.sources();
    let candidates = layers.iter().flat_map(|it| &it.candidates);
    let plans: Vec<&SitePlan> = candidates.flat_map(|it| it.plans.iter().flatten()).collect();
    ctx.progress.start("solve", plans.len() as u64);
    let mut count = 0;
    for plan in plans.into_iter().chain(&ranged.planned.plan.sites) {
        count += usize::from(sources.solve_once(m, plan)?);
        ctx.progress.step(1);
    }
    ctx.progress.done(&format!("{count} weights"));
    Ok(())
}

/// Corrects biases for what the plan adds on average, its schemes being final.
pub(crate) fn correct(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let wanted = job.recipe.adapt.as_ref().is_some_and(|it| it.bias_correction);
    if !wanted || deciding.adapted.is_none() {
        return Ok(deciding);
    }
    let corrected = bias::correct(deciding.ranged(), job)?;
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
    insert::quantize(&mut model, &plan, &mut ranged.sources());
    finish(&mut model, &plan.sites, &Ctx::silent())?;
    Ok(model)
}
