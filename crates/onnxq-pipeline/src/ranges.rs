//! Fixed ranges of activations, from calibration data.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Error, Inputs, Job, NeedsData, Planned, decide::Deciding};
use onnxq_ir::{Model, ValueId, ctx::Ctx, untrusted::Untrusted};
use onnxq_numerics::{affine::Interval, observe::RangeStats};
use onnxq_quant::{
    plan::{Activation, ActivationScheme, Kept, Plan, RegionNode, SitePlan},
    recipe::{ActivationSpec, Recipe},
    region::Layout,
    sources::Sources,
};
use onnxq_run::calibrate::{self, Target, can_tap};

/// Levels of an 8-bit quantized value.
const LEVELS: u32 = 256;

/// The plan as if data had shown a range of every value that can be observed: for a prediction.
pub(super) fn assume(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let any = Interval { lo: -1.0, hi: 1.0 };
    let (m, plan) = (&deciding.planned.model, &deciding.planned.plan);
    let values = observed(m, plan.sites.clone(), &plan.region).into_iter();
    let values = values.filter(|(value, _)| can_tap(m, *value).is_ok());
    let known = values.map(|(value, quantized)| ((value, key(&quantized)), any)).collect();
    deciding.measured = MeasuredRanges { known };
    finalize(deciding, job)
}

/// What values of the model span, as each kind of quantized values that some site could have sees
/// it.
#[derive(Default)]
pub(super) struct MeasuredRanges {
    known: BTreeMap<(ValueId, String), Interval>,
}

impl MeasuredRanges {
    pub(crate) fn get(&self, value: ValueId, quantized: &ActivationScheme) -> Option<Interval> {
        self.known.get(&(value, key(quantized))).copied()
    }

    /// The ranges that a plan needs. A value that a site and the region share spans what the site
    /// was measured with.
    pub(crate) fn of(&self, m: &Model, plan: &Plan) -> BTreeMap<ValueId, Interval> {
        let sites = plan.sites.clone();
        let observed = observed(m, Vec::new(), &plan.region).into_iter();
        let observed = observed.chain(self::observed(m, sites, &[]));
        observed
            .filter_map(|(value, quantized)| Some((value, self.get(value, &quantized)?)))
            .collect()
    }
}

fn observed(
    m: &Model,
    sites: Vec<SitePlan>,
    region: &[RegionNode],
) -> Vec<(ValueId, ActivationScheme)> {
    Plan { sites, region: region.to_vec(), ..Plan::default() }.observed(m)
}

fn key(quantized: &ActivationScheme) -> String {
    format!("{:?} {}", quantized.observer, quantized.symmetric)
}

/// A plan and what calibration data says of the values in it.
#[derive(Clone, Copy)]
pub(super) struct Ranged<'a> {
    pub planned: &'a Planned,
    pub measured: &'a MeasuredRanges,
    /// Weights that were solved.
    pub solved: &'a Mutex<Sources>,
}

impl<'a> Ranged<'a> {
    pub(super) fn sources(&self) -> MutexGuard<'a, Sources> {
        self.solved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values whose ranges are to be known, and what is seen of them.
#[derive(Default)]
pub(super) struct Observing {
    wanted: Vec<(ValueId, ActivationScheme)>,
    stats: BTreeMap<ValueId, RangeStats>,
}

impl Observing {
    /// What is to look at the data.
    pub(super) fn targets(&mut self) -> Vec<Target<'_>> {
        calibrate::targets(&mut self.stats)
    }

    /// The ranges, once all data was seen.
    pub(super) fn ranges(self) -> MeasuredRanges {
        let Observing { wanted, stats } = self;
        let range = |(value, quantized): (ValueId, ActivationScheme)| {
            let range = quantized.observer.range(stats.get(&value)?, LEVELS, quantized.symmetric);
            Some(((value, key(&quantized)), range))
        };
        MeasuredRanges { known: wanted.into_iter().filter_map(range).collect() }
    }
}

/// The ranges of all values that static sites and the region need.
fn collect(planned: &Planned, inputs: &Inputs, ctx: &Ctx) -> Result<MeasuredRanges, Error> {
    let mut observing = observing(planned, Vec::new(), inputs)?;
    observe_targets(planned, observing.targets(), inputs, ctx)?;
    Ok(observing.ranges())
}

/// Shows the targets all data.
pub(super) fn observe_targets(
    planned: &Planned,
    targets: Vec<Target<'_>>,
    inputs: &Inputs,
    ctx: &Ctx,
) -> Result<(), Error> {
    if targets.is_empty() {
        return Ok(());
    }
    let batches = inputs.batches(&planned.model)?;
    let run = inputs.run(&planned.model, &planned.files, batches);
    Ok(calibrate::observe(run, targets, ctx)?)
}

/// What static sites, those of `others` among them, and the region need to know of the data.
pub(super) fn observing(
    planned: &Planned,
    others: Vec<SitePlan>,
    inputs: &Inputs,
) -> Result<Observing, Error> {
    let m = &planned.model;
    let is_static = |it: &&SitePlan| it.activation == Some(Activation::Static);
    let sites = planned.plan.sites.iter().chain(&others).filter(is_static);
    let region = joining(m, sites.clone().cloned().collect(), &planned.plan.region);
    let mut groups: BTreeMap<String, Vec<SitePlan>> = BTreeMap::new();
    sites.for_each(|it| groups.entry(key(&it.quantized)).or_default().push(it.clone()));
    // Without static nodes the region has nothing to join.
    let Some(first) = groups.values().flatten().next().map(|it| it.site.node) else {
        return Ok(Observing::default());
    };
    if inputs.data.is_none() {
        let node = m.node_label(first);
        let who = format!("the fixed range of the activation of `{}`", Untrusted(&node));
        return Err(NeedsData { who }.into());
    }
    let of_sites = groups.into_values().flat_map(|sites| observed(m, sites, &[]));
    let observed = of_sites.chain(observed(m, Vec::new(), &region));
    let wanted: Vec<(ValueId, ActivationScheme)> =
        observed.filter(|it| can_tap(m, it.0).is_ok()).collect();
    let stats = wanted.iter().map(|it| (it.0, RangeStats::default())).collect();
    Ok(Observing { wanted, stats })
}

/// The nodes of the region that would compute with quantized values if all these sites did: with fewer
/// sites no others do.
fn joining(m: &Model, sites: Vec<SitePlan>, region: &[RegionNode]) -> Vec<RegionNode> {
    let any = Interval { lo: -1.0, hi: 1.0 };
    let region = region.to_vec();
    let mut plan = Plan { sites, region, ..Plan::default() };
    plan.ranges = plan.observed(m).into_iter().map(|it| (it.0, any)).collect();
    let layout = Layout::new(m, &plan);
    plan.region.retain(|it| layout.nodes.contains_key(&it.node));
    plan.region
}

/// The ranges of the plan as it stands, unless `adapt` is still to choose among several.
pub(super) fn observe(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    if job.recipe.adapt.is_none() || job.inputs.data.is_none() {
        deciding.measured = collect(&deciding.planned, job.inputs, job.ctx)?;
    }
    Ok(deciding)
}

/// The site in float with its weight quantized, if that is among what activations choose from.
fn stored(recipe: &Recipe, m: &Model, site: &SitePlan) -> Option<SitePlan> {
    let candidates = recipe.adapt.iter().flat_map(|it| &it.candidates);
    let in_float = candidates.filter(|it| it.activation == ActivationSpec::Float);
    in_float.filter_map(|it| it.of(m, site).ok()).flatten().next()
}

/// Gives the plan its ranges. Sites that need one nobody could observe compute in float, and say so:
/// with small weights, if the recipe has a way.
pub(super) fn finalize(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let Deciding { planned, measured, .. } = &mut deciding;
    let (m, plan) = (&planned.model, &mut planned.plan);
    plan.ranges = measured.of(m, plan);
    let mut left: BTreeMap<_, _> = Layout::new(m, plan).left.into_iter().collect();
    let (mut sites, mut kept, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for site in std::mem::take(&mut plan.sites) {
        let node = site.site.node;
        let reason = left.remove(&node);
        let in_float = reason.as_ref().and_then(|_| stored(job.recipe, m, &site));
        match reason {
            Some(reason) if in_float.is_some() => {
                notes.push((node, format!("it computes in float: {reason}")));
                sites.extend(in_float);
            }
            Some(reason) => {
                let elements = m.constant(site.site.weight).map_or(0, |it| it.numel());
                kept.push(Kept { node, elements, reason });
            }
            None => sites.push(site),
        }
    }
    plan.sites = sites;
    plan.kept.extend(kept);
    notes.into_iter().for_each(|(node, note)| plan.note(node, note));
    Ok(deciding)
}
