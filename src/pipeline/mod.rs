//! The jobs, step by step: plan, quantize, validate. Forward only; nothing calls upward.

mod adapt;
pub mod attribution;
mod calibrate;
pub mod convert;
mod error;
pub mod facts;
pub mod footprint;
mod isolation;
mod judge;
mod lint;
mod mixed;
pub mod origin;
mod ranges;
mod saturation;
mod transform;
mod validate;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::origin::Origin;
pub use self::{
    adapt::{Adapted, Choosing, Correction, Measured, Tried, Unreached},
    calibrate::{Calibration, MissingStats, NeedsData},
    error::Error,
    lint::{Execution, LintReport, execution, fix, lint},
    mixed::{Goal, Mixed, Point, Sensitivity, Unmet},
    saturation::{Bits, Exactness},
    validate::{Measures, Validate, validate},
};
use onnxq_ir::{
    Model, NoMatch, NodeId,
    ctx::Ctx,
    diag::Warning,
    human::{bytes, grouped},
    no_match,
    onnx::{self, Files, OpenOptions, SaveOptions},
    tensor::first_non_finite,
};
use onnxq_quant::{
    format::{self, Format},
    insert, ops,
    plan::{Plan, PlanRow, SitePlan},
    recipe::{self, Recipe, RecipeError, resolve::resolve},
    sources::{Gauge, Sources},
    tied,
};
use onnxq_rewrite as rewrite;
use onnxq_rewrite::lint::{Finding, OwnFinding, Severity};

/// What to quantize, and how.
pub struct Job {
    pub model: PathBuf,
    pub recipe: Recipe,
    pub open: OpenOptions,
    /// Leave weights with NaN or Inf in float instead of failing.
    pub skip_nonfinite: bool,
    /// Choose bits and blocks by measurement. Needs calibration data.
    pub goal: Option<Goal>,
}

/// A prepared model and the decisions for it.
pub struct Planned {
    pub model: Model,
    pub files: Files,
    pub plan: Plan,
    pub rows: Vec<PlanRow>,
    pub before: Census,
    pub warnings: Vec<Warning>,
    /// The errors of the weights of these nodes, once they are solved.
    gauges: Vec<(NodeId, Gauge)>,
    /// What calibration data says of static activations.
    spans: ranges::Spans,
    /// What the result will say of how it was made.
    origin: Origin,
}

/// What a model consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Census {
    pub bytes: u64,
    pub nodes: usize,
    pub initializers: usize,
    pub ops: BTreeMap<String, usize>,
}

/// The result of a quantization.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub recipe: String,
    pub model: PathBuf,
    /// `None` after a dry run.
    pub output: Option<PathBuf>,
    pub before: Census,
    pub after: Census,
    pub quantized_nodes: usize,
    /// Fraction of the bytes of float weights of two and more dimensions that became smaller.
    pub quantized_weights: f64,
    pub nodes: Vec<PlanRow>,
    /// How activations were chosen, if by measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapted: Option<Adapted>,
    /// How bits were chosen, if by measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixed: Option<Mixed>,
    /// What ONNX Runtime makes of the result; `None` after a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// On which CPUs its int8 layers are exact; `None` after a dry run and without such layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8: Option<Exactness>,
    pub warnings: Vec<Warning>,
}

/// Reads a model, prepares it and decides for each node.
pub fn plan(job: &Job, ctx: &Ctx) -> Result<Planned, Error> {
    let loaded = onnx::open(&job.model, &job.open)?;
    let (mut model, files) = (loaded.model, loaded.files);
    let before = Census::of(&model, files.size());
    ctx.progress.start("read", 0);
    ctx.progress.done(&describe_input(&model, &before, &files));
    loaded.warnings.iter().for_each(|it| ctx.progress.warn(it));

    ctx.progress.start("prepare", 0);
    let steps = rewrite::run(&mut model, &job.recipe.prepare(rewrite::STANDARD), ctx)?;
    ctx.progress.done(&describe_steps(before.nodes, model.nodes().len(), &steps));

    let plan = decide(job, &model)?;
    let rows = plan.rows(&model);
    // A goal is still to change the plan.
    let apart = if job.goal.is_none() { tied::apart(&model, &plan) } else { Vec::new() };
    apart.iter().for_each(|it| ctx.progress.warn(it));
    let warnings = loaded.warnings.into_iter().chain(apart).collect();
    Ok(Planned {
        model,
        files,
        plan,
        rows,
        before,
        warnings,
        gauges: Vec::new(),
        spans: Default::default(),
        origin: Origin::new(job),
    })
}

/// Decides for each node of a prepared model.
fn decide(job: &Job, model: &Model) -> Result<Plan, RecipeError> {
    let finite = |m: &Model, site: &ops::Site| match job.skip_nonfinite {
        true => finite(m, site),
        false => Ok(()),
    };
    let mut plan = resolve(&job.recipe, model, &finite)?;
    saturation::release(&mut plan);
    Ok(plan)
}

impl Planned {
    /// Shapes the graph as the recipe's transforms will, for a prediction without data.
    pub fn outline(&mut self, job: &Job) -> Result<(), Error> {
        transform::outline(self, job)
    }

    /// Brings the model to its final form. Weights that `sources` lacks are still to be computed.
    pub fn lower(&mut self, mut sources: Sources, ctx: &Ctx) -> Result<(), Error> {
        ctx.progress.start("quantize", 0);
        insert::quantize(&mut self.model, &self.plan, &mut sources);
        self.gauges = sources.errors(&self.model, &self.plan.sites);
        finish(&mut self.model, &self.plan.sites, ctx)?;
        self.model.verify()?;
        ctx.progress.done(&self.describe());
        Ok(())
    }

    /// `30 of 39 nodes with weights: dynamic 29 · gather_block_quantized 1`.
    fn describe(&self) -> String {
        let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
        for site in &self.plan.sites {
            *formats.entry(site.format.name).or_default() += 1;
        }
        let parts: Vec<String> = formats.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let parts =
            if parts.is_empty() { String::new() } else { ": ".to_owned() + &parts.join(" · ") };
        let rows = self.rows.iter().filter(|it| !it.is_chain()).count();
        format!("{} of {rows} nodes with weights{parts}", self.plan.sites.len())
    }

    /// Fraction of the weights' bytes that the plan makes smaller.
    pub fn quantized_weights(&self) -> f64 {
        let weights = |it: &&PlanRow| it.shape.len() >= 2;
        let count = |row: &PlanRow| row.shape.iter().product::<usize>() as f64;
        let mut seen: BTreeMap<&str, (f64, bool)> = BTreeMap::new();
        for row in self.rows.iter().filter(weights) {
            let it = seen.entry(&row.weight).or_insert((count(row), false));
            it.1 |= row.format.is_some();
        }
        let total: f64 = seen.values().map(|it| it.0).sum();
        let quantized: f64 = seen.values().filter(|it| it.1).map(|it| it.0).sum();
        if total == 0.0 { 0.0 } else { quantized / total }
    }

    /// Bytes that would be written if these were the plan's sites.
    fn size_with(
        &self,
        sites: Vec<SitePlan>,
        output: &Path,
        save: &SaveOptions,
    ) -> Result<u64, Error> {
        let mut model = self.model.clone();
        let (chain, ranges) = (self.plan.chain.clone(), self.plan.ranges.clone());
        let plan = Plan { sites, chain, ranges, kept: Vec::new() };
        insert::quantize(&mut model, &plan, &mut Sources::default());
        finish(&mut model, &plan.sites, &Ctx::silent())?;
        share_tied(&mut model, &self.files, save)?;
        self.origin.mark(&mut model, save);
        let (model, data) = onnx::layout_sizes(&model, output, save, Some(&self.files))?;
        Ok(model + data)
    }

    /// What would be written, once the model is lowered.
    pub fn dry_run(
        &mut self,
        job: &Job,
        output: &Path,
        save: &SaveOptions,
    ) -> Result<Outcome, Error> {
        share_tied(&mut self.model, &self.files, save)?;
        self.origin.mark(&mut self.model, save);
        let (model, data) = onnx::layout_sizes(&self.model, output, save, Some(&self.files))?;
        Ok(self.outcome(job, None, model + data))
    }

    pub fn outcome(&self, job: &Job, output: Option<&Path>, size: u64) -> Outcome {
        let mut nodes = self.rows.clone();
        for row in &mut nodes {
            let gauge = self.gauges.iter().find(|it| it.0 == row.id);
            row.error = gauge.and_then(|it| it.1.error());
        }
        Outcome {
            schema: "onnxq.quantize/1",
            onnxq: env!("CARGO_PKG_VERSION"),
            recipe: job.recipe.name.clone(),
            model: job.model.clone(),
            output: output.map(Path::to_owned),
            before: self.before.clone(),
            after: Census::of(&self.model, size),
            quantized_nodes: self.plan.sites.len(),
            quantized_weights: self.quantized_weights(),
            nodes,
            adapted: None,
            mixed: None,
            execution: None,
            int8: None,
            warnings: self.warnings.clone(),
        }
    }
}

/// The whole job: the model at `job.model` becomes one at `output`.
///
/// Returns an outcome without an output if nothing can be quantized and `allow_noop` is off.
pub fn quantize(
    job: &Job,
    output: &Path,
    save: &SaveOptions,
    calibration: &Calibration,
    allow_noop: bool,
    ctx: &Ctx,
) -> Result<Outcome, Error> {
    save.check_free(output)?;
    let mut planned = plan(job, ctx)?;
    if planned.plan.sites.is_empty() && !allow_noop {
        return Ok(planned.outcome(job, None, planned.before.bytes));
    }
    let source = origin::hash(&planned.files);
    origin::learn(&mut planned, job, calibration)?;
    transform::transform(&mut planned, job, calibration, ctx)?;
    if job.recipe.adapt.is_none() || calibration.data.is_none() {
        planned.spans = ranges::collect(&planned, Vec::new(), calibration, ctx)?;
    }
    let mut adapted = adapt::choose(&mut planned, job, calibration, ctx)?;
    ranges::settle(&mut planned);
    if planned.plan.sites.is_empty() && !allow_noop {
        return Ok(planned.outcome(job, None, planned.before.bytes));
    }
    let target = mixed::Target { output, save };
    let mixed = match job.goal {
        Some(goal) => Some(mixed::choose(&mut planned, job, goal, target, calibration, ctx)?),
        None => None,
    };
    saturation::choose(&mut planned, calibration, ctx)?;
    if let Some(adapted) = &mut adapted {
        adapt::correct(&mut planned, job, adapted, calibration, ctx)?;
    }
    let theirs = onnxq_rewrite::lint::run(&planned.model);
    let sources = calibrate::solve(&mut planned, &job.recipe, calibration, output, ctx)?;
    planned.lower(sources, ctx)?;
    share_tied(&mut planned.model, &planned.files, save)?;
    planned.origin.settle(&source.join().expect("reading files does not panic")?);
    planned.origin.mark(&mut planned.model, save);
    let saved = onnx::save(&planned.model, output, save, Some(&planned.files), ctx)?;
    let written = read_back(output, &job.open)?;
    let own = own_findings(&theirs, &written.model, ctx)?;
    ctx.progress.start("check", 0);
    let execution = lint::execution(&written.model, &written.files, &calibration.runtime);
    ctx.progress.done(execution.verdict());
    let outcome = planned.outcome(job, Some(output), saved.bytes());
    let int8 = Exactness::of(&written.model, &outcome.nodes)?;
    let mut outcome = Outcome { adapted, mixed, execution: Some(execution), int8, ..outcome };
    outcome.warnings.extend(own);
    if let Some(warning) = two_bits(&outcome.nodes) {
        ctx.progress.warn(&warning);
        outcome.warnings.push(warning);
    }
    Ok(outcome)
}

/// What two bits cost, if some weights got no more.
fn two_bits(rows: &[PlanRow]) -> Option<Warning> {
    let is_coarse = |it: &&PlanRow| it.scheme.as_ref().is_some_and(|it| it.starts_with("int2"));
    let errors = rows.iter().filter(is_coarse).filter_map(|it| Some(it.error?.solved));
    let mut errors: Vec<f64> = errors.collect();
    errors.sort_by(f64::total_cmp);
    let (median, worst) = (errors.get(errors.len() / 2)?, errors.last()?);
    let percent = |it: &f64| 100.0 * it.sqrt();
    Some(Warning::remark(format!(
        "2 bits lose quality: the outputs of {} weights are off by {:.0} % (rms, median; worst \
         {:.0} %)",
        errors.len(),
        percent(median),
        percent(worst)
    )))
}

/// What `quantize` would do, with the exact size of its output. Nothing is run on the data.
pub fn dry_run(
    job: &Job,
    output: &Path,
    save: &SaveOptions,
    calibration: &Calibration,
    ctx: &Ctx,
) -> Result<Outcome, Error> {
    let mut planned = plan(job, ctx)?;
    origin::learn(&mut planned, job, calibration)?;
    planned.outline(job)?;
    planned.lower(Sources::default(), ctx)?;
    planned.dry_run(job, output, save)
}

/// Rewrites a model by named passes and rules.
pub fn rewrite(
    model: &mut Model,
    names: &[String],
    ctx: &Ctx,
) -> Result<Vec<(String, usize)>, Error> {
    let mut steps = Vec::new();
    for name in names {
        match name.as_str() {
            // As in a recipe's `prepare`.
            recipe::STANDARD => steps.extend(rewrite::STANDARD.iter().map(|it| (*it).to_owned())),
            _ => steps.push(name.clone()),
        }
    }
    let steps = rewrite::run(model, &steps, ctx)?;
    model.verify()?;
    Ok(steps)
}

/// From the canonical form to that of the file.
fn finish(model: &mut Model, sites: &[SitePlan], ctx: &Ctx) -> Result<(), Error> {
    let mut formats: Vec<&'static Format> = sites.iter().map(|it| it.format).collect();
    formats.sort_by_key(|it| it.name);
    formats.dedup_by_key(|it| it.name);
    format::lower(model, &formats)?;
    rewrite::run(model, rewrite::CLEAN_UP, ctx)?;
    Ok(())
}

/// Initializers of one file cannot share bytes, so there a tied table becomes a view.
fn share_tied(model: &mut Model, files: &Files, save: &SaveOptions) -> Result<(), Error> {
    let external = onnx::is_external(model, save, Some(files));
    if !external && tied::reshape(model) > 0 {
        rewrite::run(model, &["remove-dead"], &Ctx::silent())?;
    }
    Ok(())
}

impl Census {
    pub fn of(model: &Model, bytes: u64) -> Census {
        let mut ops: BTreeMap<String, usize> = BTreeMap::new();
        let nodes = model.nodes();
        for node in &nodes {
            *ops.entry(model.node(*node).op.to_string()).or_default() += 1;
        }
        let graphs = model.graphs();
        let initializers = graphs.iter().map(|it| model.graph(*it).constants.len()).sum();
        Census { bytes, nodes: nodes.len(), initializers, ops }
    }
}

fn describe_input(model: &Model, census: &Census, files: &Files) -> String {
    let size = match files.paths().count() {
        0 => "text".to_owned(),
        1 => format!("{}, 1 file", bytes(census.bytes)),
        count => format!("{}, {count} files", bytes(census.bytes)),
    };
    format!(
        "{size} · opset {} · {} nodes · {} initializers",
        model.opset(""),
        grouped(census.nodes as u64),
        grouped(census.initializers as u64)
    )
}

fn describe_steps(before: usize, after: usize, steps: &[(String, usize)]) -> String {
    for (name, count) in steps.iter().filter(|it| it.1 > 0) {
        tracing::info!("{name}: {count}");
    }
    let count = steps.iter().filter(|it| it.0 != "infer-types").map(|it| it.1).sum::<usize>();
    let [before, after, count] = [before, after, count].map(|it| grouped(it as u64));
    format!("{before} → {after} nodes by {count} rewrites")
}

/// Reads a weight in pieces, looking for values that no scale can stand for.
fn finite(m: &Model, site: &ops::Site) -> Result<(), NoMatch> {
    let tensor = m.constant(site.weight)?;
    let is_matrix = tensor.shape.len() == 2;
    let tensor = if is_matrix { tensor.clone() } else { ops::rows(site, tensor) };
    let columns = tensor.shape[1].max(1);
    let rows = (1 << 20usize) / columns + 1;
    for start in (0..tensor.shape[0]).step_by(rows) {
        let end = (start + rows).min(tensor.shape[0]);
        let values = tensor.rows_f32(start..end).map_err(|err| no_match!("{err}"))?;
        if let Some((at, what)) = first_non_finite(&values) {
            let (row, column) = (start + at / columns, at % columns);
            let name = &m.value(site.weight).name;
            return Err(no_match!("weight `{name}` holds {what} at [{row}, {column}]"));
        }
    }
    Ok(())
}

/// A file that our own reader refuses must not leave the house.
fn read_back(output: &Path, options: &OpenOptions) -> Result<onnx::Loaded, Error> {
    let loaded = onnx::open(output, options)?;
    loaded.model.verify()?;
    Ok(loaded)
}

/// Slow and broken forms of the result: those that the original had are a warning, others are our
/// own, and a bug.
fn own_findings(theirs: &[Finding], written: &Model, ctx: &Ctx) -> Result<Option<Warning>, Error> {
    let findings = onnxq_rewrite::lint::run(written);
    let own = onnxq_rewrite::lint::new(theirs, &findings);
    if let Some(first) = own.first() {
        let (node, what) = (first.node.clone(), first.what.clone());
        return Err(OwnFinding { count: own.len(), code: first.code, node, what }.into());
    }
    let count = findings.iter().filter(|it| it.severity < Severity::Advice).count();
    let warning = (count > 0).then(|| {
        let s = if count == 1 { "" } else { "s" };
        Warning::remark(format!(
            "{count} node{s} of the original run slowly or not at all: see `inspect --lint`"
        ))
    });
    warning.iter().for_each(|it| ctx.progress.warn(it));
    Ok(warning)
}
