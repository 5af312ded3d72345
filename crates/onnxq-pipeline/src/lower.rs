//! Stage 5: the graph in its final form; weights that need no data are still to be computed.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Adapted, Census, Decided, Error, Job, Mixed, OutputFile, Planned,
    distil::{self, Learnt},
    facts::Told,
    gguf::{self, Gguf},
    origin::{self, Origin},
};
use onnx::SaveOptions;
use onnxq_ir::{
    Model, NodeId,
    ctx::Ctx,
    diag::Warning,
    onnx::{self, Files, OpenOptions},
};
use onnxq_quant::{
    format::{self, Format},
    insert,
    plan::{Plan, PlanRow, SitePlan},
    sources::{MeasuredError, Sources},
    tied,
};
use onnxq_rewrite::{
    self as rewrite,
    lint::{self, Finding},
};

/// A model as it will be written, but for what depends on the file: whether tied tables share
/// bytes, and what the metadata says.
pub struct Lowered {
    pub model: Model,
    pub files: Files,
    pub rows: Vec<PlanRow>,
    pub before: Census,
    pub warnings: Vec<Warning>,
    pub adapted: Option<Adapted>,
    pub mixed: Option<Mixed>,
    pub learnt: Option<Learnt>,
    pub(super) options: OpenOptions,
    /// Slow and broken forms that the original has.
    pub(super) findings: Vec<Finding>,
    pub(super) origin: Origin,
    /// The errors of the weights of these nodes, once they are solved.
    pub(super) weight_errors: Vec<(NodeId, MeasuredError)>,
    /// The file to be, if it is a GGUF file; the model is then what it is made of.
    pub(super) gguf: Option<Gguf>,
}

impl Decided {
    /// Brings the model to its final form.
    pub fn lower(self, job: &Job) -> Result<Lowered, Error> {
        if self.planned.gguf.is_some() {
            return self.lower_to_gguf(job);
        }
        let Decided { planned, adapted, mixed, mut sources, outlined } = self;
        let Planned {
            mut model, files, plan, before, warnings, options, mut origin, widened, ..
        } = planned;
        let (rows, findings) = (plan.rows(&model), lint::run(&model));
        job.ctx.progress.start("quantize", 0);
        let float = model.clone();
        insert::quantize(&mut model, &plan, &mut sources);
        let learnt = match outlined {
            true => None,
            false => distil::recover(&mut model, (&float, &files), &plan.sites, job)?,
        };
        if let (Some(learnt), Some(told)) = (&learnt, &mut origin.distilled) {
            *told = learnt.told_in(told.len());
        }
        let weight_errors = sources.errors(&model, &plan.sites);
        finish(&mut model, &plan.sites, job.ctx)?;
        narrow(&mut model, widened, job.ctx)?;
        model.verify()?;
        job.ctx.progress.done(&describe(&plan, &rows));
        Ok(Lowered {
            model,
            files,
            rows,
            before,
            warnings,
            adapted,
            mixed,
            learnt,
            options,
            findings,
            origin,
            weight_errors,
            gguf: None,
        })
    }

    /// Tensors with types of ggml. The graph is llama.cpp's own, so the model stays as it is.
    fn lower_to_gguf(self, job: &Job) -> Result<Lowered, Error> {
        let Decided { planned, adapted, mixed, mut sources, .. } = self;
        let Planned { model, files, plan, before, mut warnings, options, origin, gguf, .. } =
            planned;
        let rows = plan.rows(&model);
        job.ctx.progress.start("quantize", 0);
        let target = gguf.expect("asked for before");
        let gguf = Gguf::of(target, &model, &plan.sites, &mut sources);
        for note in gguf.notes() {
            let warning = Warning::remark(note.clone());
            job.ctx.progress.warn(&warning);
            warnings.push(warning);
        }
        let weight_errors = sources.errors(&model, &plan.sites);
        job.ctx.progress.done(&describe(&plan, &rows));
        Ok(Lowered {
            model,
            files,
            rows,
            before,
            warnings,
            adapted,
            mixed,
            learnt: None,
            options,
            findings: Vec::new(),
            origin,
            weight_errors,
            gguf: Some(gguf),
        })
    }
}

impl Planned {
    /// Bytes that would be written if these were the plan's sites.
    pub(super) fn size_with(
        &self,
        sites: Vec<SitePlan>,
        target: &OutputFile,
    ) -> Result<u64, Error> {
        if let Some(gguf) = &self.gguf {
            return self.gguf_size_with(gguf.clone(), sites, target);
        }
        let mut model = self.model.clone();
        let (region, ranges) = (self.plan.region.clone(), self.plan.ranges.clone());
        let rows = Plan { sites: sites.clone(), ..self.plan.clone() }.rows(&self.model);
        let plan = Plan { sites, region, ranges, ..Plan::default() };
        insert::quantize(&mut model, &plan, &mut Sources::default());
        finish(&mut model, &plan.sites, &Ctx::silent())?;
        narrow(&mut model, self.widened, &Ctx::silent())?;
        share_tied(&mut model, &self.files, &target.save)?;
        let told = Told::of(&rows, None).with_room(&rows);
        self.origin.mark(&mut model, (&Origin::unknown(), told), &target.save);
        let path = target.path.as_deref().unwrap_or(&self.files.model);
        let (model, data) = onnx::layout_sizes(&model, path, &target.save, Some(&self.files))?;
        Ok(model + data)
    }
}

impl Planned {
    /// Bytes of the GGUF file that these sites would make.
    fn gguf_size_with(
        &self,
        gguf: Arc<gguf::Target>,
        sites: Vec<SitePlan>,
        target: &OutputFile,
    ) -> Result<u64, Error> {
        let mut plan = Plan { sites, ..self.plan.clone() };
        gguf::unify(&gguf, &self.model, &mut plan);
        let rows = plan.rows(&self.model);
        let gguf = Gguf::of(gguf, &self.model, &plan.sites, &mut Sources::default());
        let mut model = self.model.clone();
        let told = Told::of(&rows, None).with_room(&rows);
        self.origin.mark(&mut model, (&Origin::unknown(), told), &target.save);
        gguf.size(&origin::of_gguf(&model))
    }
}

/// `30 of 39 nodes with weights: dynamic 29 · gather_block_quantized 1`.
fn describe(plan: &Plan, rows: &[PlanRow]) -> String {
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for site in &plan.sites {
        *formats.entry(site.format.name).or_default() += 1;
    }
    let parts: Vec<String> = formats.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let parts =
        if parts.is_empty() { String::new() } else { ": ".to_owned() + &parts.join(" · ") };
    let rows = rows.iter().filter(|it| !it.is_of_region()).count();
    format!("{} of {rows} nodes with weights{parts}", plan.sites.len())
}

/// From the canonical form to that of the file.
pub(super) fn finish(model: &mut Model, sites: &[SitePlan], ctx: &Ctx) -> Result<(), Error> {
    let mut formats: Vec<&'static Format> = sites.iter().map(|it| it.format).collect();
    formats.sort_by_key(|it| it.name);
    formats.dedup_by_key(|it| it.name);
    format::lower(model, &formats)?;
    rewrite::run(model, rewrite::CLEAN_UP, ctx)?;
    Ok(())
}

/// Weights that were read as float32 and are left are stored as they were.
fn narrow(model: &mut Model, widened: bool, ctx: &Ctx) -> Result<(), Error> {
    if widened {
        rewrite::run(model, &["narrow-constants"], ctx)?;
        // Scales that are stored narrow are computed again.
        rewrite::run(model, rewrite::CLEAN_UP, ctx)?;
    }
    Ok(())
}

/// A tied table becomes a view of its head: a transposed one always, one in blocks where
/// initializers cannot share bytes, in the model file itself.
pub(super) fn share_tied(
    model: &mut Model,
    files: &Files,
    save: &SaveOptions,
) -> Result<(), Error> {
    let external = onnx::is_external(model, save, Some(files));
    let views = tied::transpose(model)
        + tied::transpose_heads(model)
        + if external { 0 } else { tied::reshape(model) };
    if views > 0 {
        rewrite::run(model, &["remove-dead"], &Ctx::silent())?;
    }
    Ok(())
}
