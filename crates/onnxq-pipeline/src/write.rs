//! Stage 6: the file, read back and checked.

use std::{path::Path, sync::Arc};

use super::{
    Adapted, Delivered, Destination, Error, Exactness, Execution, Job, Lowered, Outcome,
    distil::Learnt,
    facts::Told,
    lower::share_tied,
    origin::{self, DECISIONS},
    outcome::with_errors,
};
use onnxq_ir::{
    Late, Model,
    ctx::Ctx,
    diag::Warning,
    onnx::{self, Loaded, OpenOptions, SaveOptions},
};
use onnxq_quant::plan::{Activation, PlanRow};
use onnxq_rewrite::lint::{self, Finding, OwnFinding, Severity};

impl Lowered {
    /// The model with what its file will say of it.
    pub fn finalize(&mut self, save: &SaveOptions) -> Result<(), Error> {
        if self.gguf.is_none() {
            share_tied(&mut self.model, &self.files, save)?;
        }
        let source = self.origin.digest()?;
        // Where bits were chosen to fit a size, nothing is told that would change it.
        let adapted = self.adapted.as_ref().filter(|_| self.mixed.is_none());
        let learnt = self.learnt.as_ref().filter(|_| self.mixed.is_none());
        let told = Told::of(&self.rows, adapted).with_training(learnt).with_room(&self.rows);
        self.model.late = Some(self.late(adapted.cloned(), learnt.cloned(), told.len()));
        self.origin.mark(&mut self.model, (&source, told), save);
        Ok(())
    }

    /// The same of so many bytes, with what solvers achieved.
    fn late(&self, adapted: Option<Adapted>, learnt: Option<Learnt>, bytes: usize) -> Late {
        let (rows, errors) = (self.rows.clone(), self.weight_errors.clone());
        let text = move || {
            let told = Told::of(&with_errors(&rows, &errors), adapted.as_ref());
            told.with_training(learnt.as_ref()).fitted(bytes)
        };
        Late { key: DECISIONS.into(), text: Arc::new(text) }
    }

    /// Whether data may decide something about the size: which activations get which form, or what
    /// the file says of the samples.
    fn depends_on_data(&self, job: &Job) -> bool {
        let is_static = |row: &PlanRow| row.activation == Some(Activation::Static);
        let has_data = job.inputs.data.is_some();
        // What training did is written into the file.
        job.recipe.distil.is_some()
            || has_data && job.recipe.adapt.is_some()
            || !has_data && job.recipe.needs_data()
            || self.rows.iter().any(is_static)
    }

    /// What would be written, and how large it would be.
    pub fn predict(mut self, path: &Path, save: &SaveOptions, job: &Job) -> Result<Outcome, Error> {
        self.finalize(save)?;
        if let Some(gguf) = &self.gguf {
            let size = gguf.size(&origin::of_gguf(&self.model))?;
            self.weight_errors.clear();
            return Ok(self.outcome(None, size, job));
        }
        let (model, data) = onnx::layout_sizes(&self.model, path, save, Some(&self.files))?;
        // Nothing was solved, so nothing is known of errors.
        self.weight_errors.clear();
        let outcome = self.outcome(None, model + data, job);
        Ok(Outcome { estimate: self.depends_on_data(job), ..outcome })
    }

    /// Writes the model, reads it back and checks what it became.
    pub fn write(mut self, path: &Path, save: &SaveOptions, job: &Job) -> Result<Outcome, Error> {
        self.finalize(save)?;
        let ctx = job.ctx;
        if let Some(gguf) = &self.gguf {
            let entries = origin::of_gguf(&self.model);
            let told = (&*entries, self.model.late.as_ref());
            let size = gguf.write(path, save, told, &self.options, ctx)?;
            return Ok(with_two_bits(self.outcome(Some(path), size, job), ctx));
        }
        let runtime = job.inputs.runtime.clone();
        let allow_refused = job.inputs.allow_refused;
        let place = Destination { path, save: *save, runtime, allow_refused };
        let done = place.deliver((&self.model, &self.files), &self.options, ctx)?;
        let Delivered { saved, written, execution } = done;
        let own = own_findings(&self.findings, &written.model, ctx)?;
        let outcome = self.outcome(Some(path), saved.bytes(), job);
        checked(outcome, &written.model, execution, own, ctx)
    }
}

/// The outcome with what was found in the file.
fn checked(
    mut outcome: Outcome,
    written: &Model,
    execution: Execution,
    own: Option<Warning>,
    ctx: &Ctx,
) -> Result<Outcome, Error> {
    outcome.int8 = Exactness::of(written, &outcome.nodes)?;
    outcome.execution = Some(execution);
    outcome.warnings.extend(own);
    Ok(with_two_bits(outcome, ctx))
}

fn with_two_bits(mut outcome: Outcome, ctx: &Ctx) -> Outcome {
    if let Some(warning) = two_bits(&outcome.nodes) {
        ctx.progress.warn(&warning);
        outcome.warnings.push(warning);
    }
    outcome
}

/// Reads the written file: one that our own reader refuses is an error.
pub(super) fn read_back(output: &Path, options: &OpenOptions) -> Result<Loaded, Error> {
    let loaded = onnx::open(output, options)?;
    loaded.model.verify()?;
    Ok(loaded)
}

/// Slow and broken forms of the result: those that the original had are a warning, others are our
/// own, and a bug.
fn own_findings(theirs: &[Finding], written: &Model, ctx: &Ctx) -> Result<Option<Warning>, Error> {
    let findings = lint::run(written);
    let own = lint::new(theirs, &findings);
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

/// What two bits cost, if some weights got no more.
fn two_bits(rows: &[PlanRow]) -> Option<Warning> {
    let is_coarse =
        |it: &&PlanRow| it.scheme.as_ref().is_some_and(|it| it.starts_with("int2") || it == "q2_k");
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
