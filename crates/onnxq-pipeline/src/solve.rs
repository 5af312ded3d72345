//! Solving weights with what calibration knows of their inputs, before the graph is lowered.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Error, Job, Planned};
use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
    digest::sha256_hex,
    fs::ScratchFolder,
    tensor::QSource,
    untrusted::Untrusted,
};
use onnxq_numerics::{
    solve::SolverSpec,
    stats::{InputStats, Needs},
};
use onnxq_quant::{
    ops::{self, Site},
    plan::{Plan, SitePlan},
    recipe::Recipe,
    sources::Sources,
    weight::{Input, dequantized},
    window::Operand,
};
use onnxq_run::calibrate::{
    self, CalibrateError, Collector, Identity, Replacement, Stats, StatsFile, Target, Want,
};

/// A step learns from data, and none was given.
#[derive(Debug, thiserror::Error)]
#[error("{who} needs calibration data, and there is none")]
pub struct NeedsData {
    /// What learns; names in it are escaped.
    pub who: String,
}

impl Diagnostic for NeedsData {
    fn code(&self) -> Code {
        Code::E610
    }

    fn hint(&self) -> Option<String> {
        Some(
            "pass --calibration with data like the model's own: text (and --tokenizer), images \
             (and --preprocess), .npy or .npz; for solvers, --stats of an earlier run is enough; \
             or take a recipe that needs none"
                .into(),
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{}` knows too little of input `{}`", path.display(), Untrusted(input))]
pub struct MissingStats {
    pub path: PathBuf,
    pub input: String,
}

impl Diagnostic for MissingStats {
    fn code(&self) -> Code {
        Code::E611
    }

    fn hint(&self) -> Option<String> {
        Some("collect them again with this recipe, or with `onnxq calibrate --hessian`".into())
    }
}

/// Sources of all weights whose solver needs data. In sequential mode layers see what comes before
/// them quantized. `known` are weights that were solved before; `others` are shown the same data,
/// unless that takes a pass of their own: the second result says whether they were.
pub(super) fn solve<'a>(
    planned: &'a mut Planned,
    known: Sources,
    others: Vec<Target<'a>>,
    job: &'a Job,
) -> Result<(Sources, bool), Error> {
    let wants = observable(&planned.model, &known, &mut planned.plan);
    if wants.is_empty() {
        return Ok((known, false));
    }
    let (m, inputs) = (&planned.model, job.inputs);
    let sequential = job.recipe.calibration.unwrap_or_default().sequential;
    let mut solving = Solving { m, sites: &planned.plan.sites, sources: known, sequential };
    let kept = inputs.stats.as_deref().filter(|it| it.exists());
    if kept.is_none() && inputs.data.is_none() {
        return Err(solving.needs_data(&wants[0].operand).into());
    }
    let identity = Identity {
        model: calibrate::model_sha256(&planned.files),
        prefix: prefix(job.recipe, planned, sequential),
        origin: planned.origin.of_stats(),
        ..Identity::default()
    };
    let seen = match kept {
        Some(file) => {
            solving.take_file(file, identity, wants, job)?;
            false
        }
        None => solving.take_data(planned, identity, (wants, others), job)?,
    };
    Ok((solving.sources, seen))
}

/// What statistics depend on besides the float model: a digest of the plan in sequential mode and
/// of the transforms.
fn prefix(recipe: &Recipe, planned: &Planned, sequential: bool) -> String {
    let transforms = recipe.transforms.as_deref().unwrap_or_default();
    if !sequential && transforms.is_empty() {
        return String::new();
    }
    let mut text = format!("{transforms:?}");
    for it in planned.plan.sites.iter().filter(|_| sequential) {
        let label = planned.model.node_label(it.site.node);
        text += &format!("\n{label} {:?} {:?} {:?}", it.scheme, it.scales, it.solver);
    }
    sha256_hex(text)
}

/// The values to observe for weights that are not solved yet. Where that is impossible, the user is told.
fn observable(m: &Model, known: &Sources, plan: &mut Plan) -> Vec<Want> {
    let mut wants: BTreeMap<Operand, Needs> = BTreeMap::new();
    let mut notes = Vec::new();
    for site in plan.sites.iter().filter(|it| !known.contains(m, it)) {
        let needs = site.solver.solver().needs();
        if needs == Needs::Nothing {
            continue;
        }
        match calibrate::observable(m, site) {
            Ok(None) => {}
            Ok(Some(operand)) => {
                let it = wants.entry(operand).or_default();
                *it = needs.max(*it);
            }
            Err(reason) => {
                notes.push((site.site.node, format!("nothing is known of its input: {reason}")));
            }
        }
    }
    notes.into_iter().for_each(|(node, note)| plan.note(node, note));
    wants.into_iter().map(|(operand, needs)| Want { operand, needs }).collect()
}

/// Where statistics lie while they are collected, if nobody wants to keep them.
fn log_beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".stats");
    output.with_file_name(name)
}

fn reads(m: &Model, site: &SitePlan, operand: &Operand) -> bool {
    site.wants(m).is_some_and(|it| it.0 == *operand)
}

struct Solving<'a> {
    m: &'a Model,
    sites: &'a [SitePlan],
    sources: Sources,
    sequential: bool,
}

impl Solving<'_> {
    /// Statistics that were collected before.
    fn take_file(
        &mut self,
        path: &Path,
        mut identity: Identity,
        wants: Vec<Want>,
        job: &Job,
    ) -> Result<(), Error> {
        let (inputs, ctx) = (job.inputs, job.ctx);
        let stats = Stats::read(path)?;
        // Without data, that of the file is meant.
        identity.data = stats.identity.data.clone();
        identity.samples = stats.identity.samples;
        if inputs.data.is_some() {
            let batches = inputs.batches(self.m)?;
            identity.data = vec![batches.sha256().to_owned()];
            identity.samples = batches.samples() as u64;
        }
        stats.identity.check(&identity, path)?;
        ctx.progress.start("solve", wants.len() as u64);
        for want in &wants {
            let name = want.operand.name(self.m);
            let found = stats.get(&name)?.filter(|it| {
                let k = calibrate::width(self.m, &want.operand);
                let whole = want.needs < Needs::Hessian || it.hessian.is_some();
                whole && k.is_ok_and(|k| k == it.k())
            });
            let missing = || MissingStats { path: path.into(), input: name.clone() };
            self.input(&want.operand, found.ok_or_else(missing)?)?;
            ctx.progress.step(1);
        }
        ctx.progress.done(&format!("{} inputs of {}", wants.len(), path.display()));
        Ok(())
    }

    /// Statistics of samples, kept in a file if asked for. A run that is killed leaves a log, with
    /// which the next one goes on.
    fn take_data<'b>(
        &mut self,
        planned: &'b Planned,
        mut identity: Identity,
        (wants, others): (Vec<Want>, Vec<Target<'b>>),
        job: &'b Job,
    ) -> Result<bool, Error> {
        let (m, inputs, ctx) = (self.m, job.inputs, job.ctx);
        let batches = inputs.batches(m)?;
        identity.data = vec![batches.sha256().to_owned()];
        identity.samples = batches.samples() as u64;
        let keep = inputs.stats.is_some();
        let scratch = ScratchFolder::in_temp()
            .map_err(|source| CalibrateError::StatsFile { path: std::env::temp_dir(), source })?;
        let path = inputs.stats.clone().or_else(|| inputs.output.path.as_deref().map(log_beside));
        let path = path.unwrap_or_else(|| scratch.path().join("statistics"));
        let store = Some(StatsFile::begin(&path, identity, keep)?);
        let mut run = inputs.run(&planned.model, &planned.files, batches);
        run.options.sequential = self.sequential;
        let mut collector = Collector::new(run, wants, store)?;
        let seen = collector.accompany(others)?;
        let mut replaced = self.data_free();
        while let Some(seen) = collector.next(&replaced, ctx)? {
            replaced.clear();
            for (operand, stats) in seen {
                replaced.extend(self.input(&operand, stats)?);
            }
        }
        Ok(seen)
    }

    fn needs_data(&self, operand: &Operand) -> NeedsData {
        let site = self.sites.iter().find(|it| reads(self.m, it, operand));
        let site = site.expect("a want comes from a site");
        let (solver, node) = (site.solver.name(), self.m.node_label(site.site.node));
        NeedsData { who: format!("solver `{solver}` of `{}`", Untrusted(&node)) }
    }

    /// Weights that need no data are quantized from the start, if later layers are to see it.
    fn data_free(&mut self) -> Vec<Replacement> {
        if !self.sequential {
            return Vec::new();
        }
        let m = self.m;
        // A table that is one with a head waits for the head's solver, which knows more.
        let waits = |it: &SitePlan| {
            self.sites.iter().any(|head| head.wants(m).is_some() && Sources::are_one(m, head, it))
        };
        let free = self.sites.iter().filter(|it| it.wants(m).is_none() && !waits(it));
        let parts = free.flat_map(|it| {
            let parts = ops::weights(m, &it.site).into_iter();
            parts.map(|(_, site)| SitePlan { site, ..it.clone() })
        });
        parts.map(|site| replacement(m, &site, self.sources.get(m, &site))).collect()
    }

    /// Solves the weights that read an input, now that its statistics are known.
    fn input(&mut self, operand: &Operand, stats: InputStats) -> Result<Vec<Replacement>, Error> {
        let (m, sites) = (self.m, self.sites);
        let mut replaced = Vec::new();
        let mut inputs: Vec<(SolverSpec, Arc<Input>)> = Vec::new();
        for site in sites.iter().filter(|it| reads(m, it, operand)) {
            let input = match inputs.iter().find(|it| it.0 == site.solver) {
                Some((_, input)) => input.clone(),
                None => {
                    let prepared = site.solver.solver().prepare(&stats)?;
                    let input = Arc::new(Input { stats: stats.clone(), prepared });
                    inputs.push((site.solver, input.clone()));
                    input
                }
            };
            let source = self.site(site, input)?;
            if self.sequential {
                replaced.push(replacement(m, site, source));
            }
        }
        Ok(replaced)
    }

    /// What keeps a matrix in memory is solved at once; the others wait until they are written.
    fn site(&mut self, site: &SitePlan, input: Arc<Input>) -> Result<Arc<dyn QSource>, Error> {
        if self.sources.contains(self.m, site) {
            return Ok(self.sources.get(self.m, site));
        }
        if site.solver.solver().needs() == Needs::Hessian {
            return Ok(self.sources.solve(self.m, site, Some(input))?);
        }
        Ok(self.sources.add(self.m, site, Some(input)))
    }
}

/// The float form of a quantized weight, as the layers after it will see it.
pub(super) fn replacement(m: &Model, site: &SitePlan, source: Arc<dyn QSource>) -> Replacement {
    let float = m.constant(site.site.weight).expect("planned weights are constant");
    let rows = dequantized(source, float.dtype);
    let tensor = ops::from_rows(&site.site, &rows, &float.shape);
    let own = |it: &(usize, Site)| it.1.weight == site.site.weight;
    let index = ops::weights(m, &site.site).into_iter().find(own).map_or(0, |it| it.0);
    Replacement { node: site.site.node, index, tensor }
}
