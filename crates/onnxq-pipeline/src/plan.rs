//! Stage 3: a site or a reason for every node with weights.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    Census, Error, Job, Opened, Prepared,
    gguf::{Target, unify},
    origin::Origin,
    search::saturation,
};
use onnxq_formats::CheckpointError;
use onnxq_ir::{
    Model, NoMatch, NodeId,
    diag::Warning,
    no_match,
    onnx::{Files, OpenOptions},
    tensor::first_non_finite,
};
use onnxq_quant::{
    ops,
    plan::Plan,
    recipe::{
        RecipeError,
        resolve::{Known, resolve},
    },
    tied,
};

/// A prepared model and what the recipe says of each node.
pub struct Planned {
    pub model: Model,
    pub files: Files,
    pub plan: Plan,
    pub before: Census,
    pub warnings: Vec<Warning>,
    pub options: OpenOptions,
    /// What the result will say of how it was made.
    pub(super) origin: Origin,
    pub(super) widened: bool,
    /// What a GGUF file is made of.
    pub(super) gguf: Option<Arc<Target>>,
}

impl Prepared {
    /// Decides for each node by the recipe alone.
    pub fn plan(self, job: &Job) -> Result<Planned, Error> {
        let Opened { model, files, mut warnings, before, options, widened, gguf } = self.0;
        if job.recipe.is_gguf() && gguf.is_none() {
            return Err(CheckpointError::NoCheckpoint { path: files.model }.into());
        }
        let mut plan = decide(job, &model, &BTreeSet::new())?;
        if let Some(target) = &gguf {
            unify(target, &model, &mut plan);
        }
        // A goal is still to change the plan.
        let apart = if job.inputs.goal.is_none() { tied::apart(&model, &plan) } else { Vec::new() };
        let told = job.recipe.warnings.iter().cloned().chain(apart);
        for warning in told {
            job.ctx.progress.warn(&warning);
            warnings.push(warning);
        }
        let origin = Origin::new(&files.model, options.drop_unknown, job);
        Ok(Planned { model, files, plan, before, warnings, options, origin, widened, gguf })
    }
}

/// Decides for each node of a prepared model, of which some are beside a rotated stream.
pub(super) fn decide(
    job: &Job,
    model: &Model,
    rotated: &BTreeSet<NodeId>,
) -> Result<Plan, RecipeError> {
    let finite = |m: &Model, site: &ops::Site| match job.inputs.skip_nonfinite {
        true => finite(m, site),
        false => Ok(()),
    };
    let stats = job.inputs.stats.as_deref();
    let calibrated = job.inputs.data.is_some() || stats.is_some_and(Path::exists);
    let mut plan = resolve(job.recipe, model, Known { rotated, calibrated }, &finite)?;
    saturation::release(&mut plan);
    Ok(plan)
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
