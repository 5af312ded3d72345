//! Solving weights with what calibration knows of their inputs, before the graph is lowered.

mod guide;
mod wants;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Error, Job, Planned};
use onnxq_ir::{
    Model,
    diag::{Code, Diagnostic},
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
    plan::SitePlan,
    sources::Sources,
    weight::{Input, dequantized},
    window::Guided,
};
use onnxq_run::calibrate::{
    self, CalibrateError, Collector, Identity, Learnt, Replacement, Stats, StatsFile, Target, Want,
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
    /// It counts tokens as gradients say.
    pub guided: bool,
}

impl Diagnostic for MissingStats {
    fn code(&self) -> Code {
        Code::E611
    }

    fn hint(&self) -> Option<String> {
        Some(match self.guided {
            true => {
                "collect them again with this recipe: `onnxq calibrate` without --hessian".into()
            }
            false => {
                "collect them again with this recipe, or with `onnxq calibrate --hessian`".into()
            }
        })
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
    let wants = wants::observable(&planned.model, &known, &mut planned.plan);
    if wants.is_empty() {
        return Ok((known, false));
    }
    let (m, inputs) = (&planned.model, job.inputs);
    let sequential = job.recipe.calibration.unwrap_or_default().sequential;
    let mut solving = Solving { m, sites: &planned.plan.sites, sources: known, sequential };
    let kept = inputs.stats.as_deref().filter(|it| it.exists());
    if kept.is_none() && inputs.data.is_none() {
        return Err(solving.needs_data(&wants[0]).into());
    }
    let identity = Identity {
        model: calibrate::model_sha256(&planned.files),
        guide: guide::name(&wants),
        prefix: wants::prefix(job.recipe, planned, sequential),
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

/// Where statistics lie while they are collected, if nobody wants to keep them.
fn log_beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".stats");
    output.with_file_name(name)
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
        for want in wants.iter() {
            let names = want.names(self.m);
            let found = names.iter().map(|it| known(self.m, &stats, want, it));
            let (operand, guided) = (want.operand.clone(), want.guided);
            self.input(Learnt { operand, guided, stats: found.collect::<Result<_, _>>()? })?;
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
        let guided: Vec<Guided> = wants.iter().filter_map(|it| it.guided).collect();
        let mut collector = Collector::new(run, wants, store)?;
        if collector.needs_guide()
            && let Some(guide) = guide::guide(planned, &guided, job)?
        {
            collector.guide(guide);
        }
        let seen = collector.accompany(others)?;
        let mut replaced = self.data_free();
        while let Some(seen) = collector.next(&replaced, ctx)? {
            replaced.clear();
            for it in seen {
                replaced.extend(self.input(it)?);
            }
        }
        Ok(seen)
    }

    fn needs_data(&self, want: &Want) -> NeedsData {
        let mut sites = self.sites.iter();
        let site = sites.find(|it| wants::reads(self.m, it, &want.operand, want.guided));
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
    fn input(&mut self, learnt: Learnt) -> Result<Vec<Replacement>, Error> {
        let (m, sites) = (self.m, self.sites);
        let Learnt { operand, guided, stats } = learnt;
        let mut replaced = Vec::new();
        let mut known: Vec<(SolverSpec, Vec<Arc<Input>>)> = Vec::new();
        for site in sites.iter().filter(|it| wants::reads(m, it, &operand, guided)) {
            let inputs = match known.iter().find(|it| it.0 == site.solver) {
                Some((_, inputs)) => inputs.clone(),
                None => {
                    let inputs = prepared(site.solver, &stats)?;
                    known.push((site.solver, inputs.clone()));
                    inputs
                }
            };
            let source = self.site(site, inputs)?;
            if self.sequential {
                replaced.push(replacement(m, site, source));
            }
        }
        Ok(replaced)
    }

    /// What keeps a matrix in memory is solved at once; the others wait until they are written.
    fn site(
        &mut self,
        site: &SitePlan,
        inputs: Vec<Arc<Input>>,
    ) -> Result<Arc<dyn QSource>, Error> {
        if self.sources.contains(self.m, site) {
            return Ok(self.sources.get(self.m, site));
        }
        if site.solver.solver().needs() == Needs::Hessian {
            return Ok(self.sources.solve(self.m, site, inputs)?);
        }
        Ok(self.sources.add(self.m, site, inputs))
    }
}

/// What a file knows of one group of what is wanted.
fn known(m: &Model, stats: &Stats, want: &Want, name: &str) -> Result<InputStats, Error> {
    let found = stats.get(name)?.filter(|it| {
        let k = calibrate::width(m, &want.operand);
        let whole = want.needs < Needs::Hessian || it.hessian.is_some();
        whole && k.is_ok_and(|k| k == it.k())
    });
    let guided = want.guided.is_some();
    let missing = || MissingStats { path: stats.path().into(), input: name.to_owned(), guided };
    Ok(found.ok_or_else(missing)?)
}

/// What a solver makes of the statistics of each group.
fn prepared(solver: SolverSpec, stats: &[InputStats]) -> Result<Vec<Arc<Input>>, Error> {
    let of = |stats: &InputStats| {
        let prepared = solver.solver().prepare(stats)?;
        Ok(Arc::new(Input { stats: stats.clone(), prepared }))
    };
    stats.iter().map(of).collect()
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
