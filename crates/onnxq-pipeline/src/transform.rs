//! Transforms of the float model, before its weights are solved.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, Inputs, Job, NeedsData, Planned, decide::Deciding, plan};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, ctx::Ctx, no_match};
use onnxq_numerics::stats::{InputStats, Needs};
use onnxq_quant::{
    ops::rows,
    plan::SitePlan,
    sources::{self, Sources},
    transform::{
        ChangeModel, Changed, FindScales, Reader, Work,
        fold::{self, Group, Kind},
        rescale,
    },
};
use onnxq_rewrite as rewrite;
use onnxq_run::calibrate::{self, Collector, Learnt, Want, can_observe};

/// Carries out the recipe's transforms and plans again: weights are new constants then. Notes say
/// which sites were left alone, and why.
pub(super) fn transform(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let Job { recipe, inputs, ctx } = *job;
    let specs = recipe.transforms.as_deref().unwrap_or_default();
    if specs.is_empty() {
        return Ok(deciding);
    }
    let blind = specs.iter().find(|it| it.needs_data()).filter(|_| inputs.data.is_none());
    if let Some(spec) = blind {
        return Err(NeedsData { who: format!("transform `{}`", spec.name()) }.into());
    }
    let planned = &mut deciding.planned;
    let mut notes: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    let mut known: BTreeMap<NodeId, InputStats> = BTreeMap::new();
    let mut changes = Changes::default();
    for spec in specs {
        let mut step = Step { name: spec.name(), notes: &mut notes, known: &mut known };
        match spec.transform().work() {
            Work::Model(it) => changes.add(step.change(planned, it, ctx)?),
            Work::Scales(it) => step.scale(planned, it, inputs, ctx)?,
        }
    }
    planned.model.verify()?;
    planned.decide_again(job, changes)?;
    planned.plan.notes = notes;
    Ok(deciding)
}

/// What the transforms make of the graph, without data: all scales are one. For a prediction.
pub(super) fn outline(mut planned: Planned, job: &Job) -> Result<Planned, Error> {
    let specs = job.recipe.transforms.as_deref().unwrap_or_default();
    if specs.is_empty() {
        return Ok(planned);
    }
    let mut changes = Changes::default();
    for spec in specs {
        let (mut notes, mut known) = (BTreeMap::new(), BTreeMap::new());
        let mut step = Step { name: spec.name(), notes: &mut notes, known: &mut known };
        let scales = match spec.transform().work() {
            Work::Scales(it) => it,
            Work::Model(it) => {
                changes.add(step.change(&mut planned, it, job.ctx)?);
                continue;
            }
        };
        for group in step.groups(&planned.model, &planned.plan.sites, scales.mul()) {
            let width = calibrate::width(&planned.model, &group.input.into()).unwrap_or(0);
            // What cannot be folded stays as it is, as it will with data.
            let _ = fold::apply(&mut planned.model, &group, &vec![1.0; width]);
        }
    }
    planned.decide_again(job, changes)?;
    Ok(planned)
}

/// What transforms want of the plan.
#[derive(Default)]
struct Changes {
    float: Vec<(NodeId, NoMatch)>,
    rotated: BTreeSet<NodeId>,
}

impl Changes {
    fn add(&mut self, changed: Changed) {
        self.float.extend(changed.float);
        self.rotated.extend(changed.rotated);
    }
}

impl Planned {
    /// Plans for the changed model. What a transform wants in float stays so.
    fn decide_again(&mut self, job: &Job, changes: Changes) -> Result<(), Error> {
        self.plan = plan::decide(job, &self.model, &changes.rotated)?;
        for (node, reason) in changes.float {
            self.plan.keep(&self.model, node, reason);
        }
        Ok(())
    }
}

/// One transform of the list.
struct Step<'a> {
    name: &'static str,
    notes: &'a mut BTreeMap<NodeId, Vec<String>>,
    /// The statistics of what each site reads, as far as the transforms have got.
    known: &'a mut BTreeMap<NodeId, InputStats>,
}

impl Step<'_> {
    /// Changes the model; what was known of activations is no longer true.
    fn change(
        &mut self,
        planned: &mut Planned,
        it: &dyn ChangeModel,
        ctx: &Ctx,
    ) -> Result<Changed, Error> {
        ctx.progress.start(self.name, 0);
        let done = it.change(&mut planned.model)?;
        // Only values of a known type can be observed.
        rewrite::run(&mut planned.model, &["infer-types"], &Ctx::silent())?;
        self.known.clear();
        for (node, reason) in &done.missed {
            self.note(*node, &reason.to_string());
        }
        ctx.progress.done(&done.summary);
        Ok(done)
    }

    /// Scales the channels of every activation that can be scaled.
    fn scale(
        &mut self,
        planned: &mut Planned,
        it: &dyn FindScales,
        inputs: &Inputs,
        ctx: &Ctx,
    ) -> Result<(), Error> {
        let groups = self.groups(&planned.model, &planned.plan.sites, it.mul());
        self.observe(planned, &groups, inputs, ctx)?;
        ctx.progress.start(self.name, groups.len() as u64);
        for group in &groups {
            self.apply(planned, it, group)?;
            ctx.progress.step(1);
        }
        ctx.progress.done(&describe(&groups));
        Ok(())
    }

    /// What can be transformed; of the rest, the user is told.
    fn groups(&mut self, m: &Model, sites: &[SitePlan], mul: bool) -> Vec<Group> {
        let (groups, missed) = fold::groups(m, sites, mul);
        for (node, reason) in missed {
            self.note(node, &reason.to_string());
        }
        let (mut kept, mut unseen) = (Vec::new(), Vec::new());
        for group in groups {
            match alone(m, sites, &group).and_then(|()| observable(m, &group)) {
                Ok(()) => kept.push(group),
                Err(reason) => unseen.push((group, reason)),
            }
        }
        for (group, reason) in unseen {
            group.sites.iter().for_each(|it| self.note(*it, &reason.to_string()));
        }
        kept
    }

    fn note(&mut self, node: NodeId, reason: &str) {
        let list = self.notes.entry(node).or_default();
        list.push(format!("{}: {reason}", self.name));
    }

    /// Collects the statistics that are not known yet.
    fn observe(
        &mut self,
        planned: &Planned,
        groups: &[Group],
        inputs: &Inputs,
        ctx: &Ctx,
    ) -> Result<(), Error> {
        let unknown = groups.iter().filter(|it| !self.known.contains_key(&it.sites[0]));
        let wants: BTreeSet<ValueId> = unknown.map(|it| it.input).collect();
        if wants.is_empty() {
            return Ok(());
        }
        let wants = wants.into_iter().map(|it| Want::of(it, Needs::Diagonal)).collect();
        let m = &planned.model;
        let batches = inputs.batches(m)?;
        let run = inputs.run(m, &planned.files, batches);
        let mut collector = Collector::new(run, wants, None)?;
        while let Some(inputs) = collector.next(&[], ctx)? {
            for Learnt { operand, stats, .. } in inputs {
                let stats = &stats[0];
                let readers = groups.iter().filter(|it| it.input == operand.value);
                for site in readers.flat_map(|it| &it.sites) {
                    self.known.insert(*site, stats.clone());
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        planned: &mut Planned,
        it: &dyn FindScales,
        group: &Group,
    ) -> Result<(), Error> {
        let Some(stats) = self.known.get(&group.sites[0]) else {
            let reason = "nothing is known of its input: no sample reached it";
            group.sites.iter().for_each(|it| self.note(*it, reason));
            return Ok(());
        };
        let m = &mut planned.model;
        let sites = planned.plan.sites.iter();
        let sites = sites.filter(|it| group.sites.contains(&it.site.node));
        let readers: Vec<Reader> = sites.filter_map(|it| reader(m, it)).collect();
        let scales = it.scales(&readers, stats, group.ties)?;
        // Elsewhere a scale of one costs nothing, and the file is as large as predicted.
        if group.fold.kind == Kind::Mul && scales.iter().all(|it| *it == 1.0) {
            let reason = "no scale makes it better";
            group.sites.iter().for_each(|it| self.note(*it, reason));
            return Ok(());
        }
        let stats = rescale(stats, &scales);
        match fold::apply(m, group, &scales) {
            Ok(()) => group.sites.iter().for_each(|it| {
                self.known.insert(*it, stats.clone());
            }),
            Err(reason) => group.sites.iter().for_each(|it| self.note(*it, &reason.to_string())),
        }
        Ok(())
    }
}

fn observable(m: &Model, group: &Group) -> Result<(), NoMatch> {
    can_observe(m, &group.input.into())
        .map_err(|reason| no_match!("nothing is known of its input: {reason}"))
}

/// A quantized weight that nodes outside the group share would be stored twice.
fn alone(m: &Model, sites: &[SitePlan], group: &Group) -> Result<(), NoMatch> {
    let (own, others): (Vec<&SitePlan>, Vec<_>) =
        sites.iter().partition(|it| group.sites.contains(&it.site.node));
    for site in own {
        if let Some(other) = others.iter().find(|it| Sources::are_one(m, site, it)) {
            let name = m.node_label(other.site.node);
            return Err(no_match!("it shares its quantized weight with {name}"));
        }
    }
    Ok(())
}

/// The weight of a site as it is now: transforms before may have changed it.
fn reader(m: &Model, it: &SitePlan) -> Option<Reader> {
    let weight = m.constant(m.operand(it.site.node, 1).ok()?).ok()?;
    let rows = rows(&it.site, weight);
    Some(Reader { rows, scheme: it.scheme, scale: sources::scale(m, it) })
}

/// `14 activations: norm 9 · linear 5`.
fn describe(groups: &[Group]) -> String {
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    groups.iter().for_each(|it| *kinds.entry(it.fold.kind).or_default() += 1);
    let parts: Vec<String> = kinds.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    let parts =
        if parts.is_empty() { String::new() } else { ": ".to_owned() + &parts.join(" · ") };
    format!("{} activations{parts}", groups.len())
}
