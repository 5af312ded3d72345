//! The conversion job: a fixed order of steps, each of which says what it did.
//!
//! ```text
//! open → fix-shape → opset → fuse → add-kv-cache → kv-cache → form (--to) → narrow floats → strip
//!      → save (--external-data) → read back → opened by ONNX Runtime
//! ```

mod cache;
mod fix_shape;
mod form;
mod fuse;
mod half;
mod halves;
mod opset;
mod strip;

use std::path::PathBuf;

use serde::Serialize;

pub use self::{
    cache::Calibration,
    fix_shape::{ShapeError, Shapes},
    half::HALVES,
};
use super::{Census, Delivered, Destination, Error, Execution, Opened, origin, untrue};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::Warning,
    onnx::{self, ExternalData, Files, OpenOptions, SaveOptions},
    releases::Needed,
    tensor::DType,
};
use onnxq_quant::lower::Form;
use onnxq_report::Comparison;
use onnxq_run::engine::Runtime;

/// What to convert, and to what.
#[derive(Clone, Debug, Default)]
pub struct Convert {
    pub model: PathBuf,
    pub open: OpenOptions,
    pub shapes: Shapes,
    /// The standard operator set to convert to.
    pub opset: Option<i64>,
    /// Prepare the model as `quantize` does.
    pub fuse: bool,
    /// Give a decoder a cache of keys and values.
    pub add_kv_cache: bool,
    /// Store that cache in eight bits.
    pub kv_cache: Option<Calibration>,
    pub to: Option<&'static Form>,
    /// A narrow float type, after all else.
    pub half: Option<DType>,
    /// Where the ranges of activations come from: nodes that overflow float16 keep their type.
    pub ranges: Option<Calibration>,
    /// Inputs and outputs keep float32 all the same.
    pub keep_io: bool,
    pub strip: bool,
    /// Write the model even if no step changes it.
    pub allow_noop: bool,
}

/// What a step did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    pub step: &'static str,
    /// How much it changed, in units of its own.
    pub changed: usize,
    /// In words.
    pub lines: Vec<String>,
    /// What it should have changed and could not.
    pub left: Vec<Left>,
    /// How far the outputs moved, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// A node that a step leaves as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Left {
    pub node: String,
    pub op: String,
    pub reason: String,
}

impl Step {
    pub fn new(step: &'static str) -> Step {
        Step { step, ..Step::default() }
    }
}

/// The result of a conversion.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub model: PathBuf,
    /// `None` if no step changed anything.
    pub output: Option<PathBuf>,
    /// The files that were written, the model first.
    pub files: Vec<PathBuf>,
    pub before: Census,
    pub after: Census,
    /// Which ONNX Runtime computes the result; `None` of a GGUF file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needed>,
    /// What ONNX Runtime makes of the file; `None` if there is none.
    pub execution: Option<Execution>,
    pub steps: Vec<Step>,
    pub warnings: Vec<Warning>,
}

/// A converted model in memory.
pub struct Done {
    pub model: Model,
    pub files: Files,
    pub before: Census,
    pub steps: Vec<Step>,
    warnings: Vec<Warning>,
}

/// Reads a model and carries out the steps that are asked for.
pub fn run(job: &Convert, ctx: &Ctx) -> Result<Done, Error> {
    apply(Opened::read(&job.model, &job.open, ctx)?, job, ctx)
}

/// Carries out the steps that are asked for, in memory.
pub fn apply(opened: Opened, job: &Convert, ctx: &Ctx) -> Result<Done, Error> {
    let Opened { mut model, files, mut warnings, before, .. } = opened;
    if let Some(data) = job.ranges.as_ref().or(job.kv_cache.as_ref()) {
        let runtime = Runtime::from(data.runtime.clone());
        let untrue = untrue::forget(&mut model, &files, &|it| data.samples(it), &runtime)?;
        untrue.iter().for_each(|it| ctx.progress.warn(it));
        warnings.extend(untrue);
    }
    let steps = steps(job, &mut model, &files, ctx)?;
    model.verify()?;
    Ok(Done { model, files, before, steps, warnings })
}

/// The whole job: the model at `job.model` becomes one at `place`.
pub fn convert(job: &Convert, place: &Destination, ctx: &Ctx) -> Result<Converted, Error> {
    let (output, save) = (place.path, &place.save);
    onnx::check_place(output)?;
    save.check_free(output)?;
    let mut done = run(job, ctx)?;
    done.steps.extend(storage(&done.model, &done.files, save));
    origin::renew(&mut done.model);
    if done.steps.iter().all(|it| it.changed == 0) && !job.allow_noop {
        let after = done.before.clone();
        return Ok(done.converted(job, None, Vec::new(), after));
    }
    let Delivered { saved, execution, .. } =
        place.deliver((&done.model, &done.files), &job.open, ctx)?;
    let after = Census::of(&done.model, saved.bytes());
    let written = saved.files.into_iter().map(|it| it.0).collect();
    let converted = done.converted(job, Some(output.to_owned()), written, after);
    Ok(Converted { execution: Some(execution), ..converted })
}

impl Done {
    fn converted(
        self,
        job: &Convert,
        output: Option<PathBuf>,
        files: Vec<PathBuf>,
        after: Census,
    ) -> Converted {
        Converted {
            schema: "onnxq.convert/1",
            onnxq: env!("CARGO_PKG_VERSION"),
            model: job.model.clone(),
            output,
            files,
            before: self.before,
            after,
            needs: Some(Needed::by(&self.model)),
            execution: None,
            steps: self.steps,
            warnings: self.warnings,
        }
    }
}

/// The steps that are asked for, in the one order in which they run.
fn steps(job: &Convert, model: &mut Model, files: &Files, ctx: &Ctx) -> Result<Vec<Step>, Error> {
    let mut done = Vec::new();
    // First: all others see the shapes.
    if !job.shapes.is_empty() {
        done.push(fix_shape::run(model, &job.shapes)?);
    }
    if let Some(target) = job.opset {
        done.push(opset::run(model, target, ctx)?);
    }
    if job.fuse {
        done.push(fuse::run(model, ctx)?);
    }
    if job.add_kv_cache {
        done.push(cache::add(model, ctx)?);
    }
    if let Some(it) = &job.kv_cache {
        done.push(cache::to_int8(model, files, it, ctx)?);
    }
    if let Some(form) = job.to {
        done.push(form::run(model, form, ctx)?);
    }
    if let Some(dtype) = job.half {
        let data = job.ranges.as_ref();
        done.push(half::run((model, files), (dtype, job.keep_io), data, ctx)?);
    }
    // Last: types that inference finds are of the final graph.
    if job.strip {
        done.push(strip::run(model));
    }
    Ok(done)
}

/// Where weights go, if the command line asks for it.
fn storage(model: &Model, files: &Files, save: &SaveOptions) -> Option<Step> {
    let what = match save.external {
        ExternalData::Auto => return None,
        ExternalData::Never => "weights in the model file".to_owned(),
        ExternalData::Always => "weights in one data file".to_owned(),
        ExternalData::Shards(limit) => format!("weights in data files of at most {limit} bytes"),
    };
    let now = onnx::is_external(model, save, Some(files));
    let moved = now != files.has_external() || matches!(save.external, ExternalData::Shards(_));
    let changed = usize::from(moved);
    Some(Step { changed, lines: vec![what], ..Step::new("external-data") })
}
