//! Stage 1 and 2: a model is read, and rewritten into the form that recipes expect.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::Serialize;

use super::{
    Error, Job,
    gguf::{self, Target},
    untrue,
};
use onnxq_formats::Form;
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::{Code, Warning},
    human::{bytes, grouped},
    infer,
    onnx::{self, Attached, Files, Loaded, OpenOptions},
    untrusted::Untrusted,
};
use onnxq_quant::recipe::Recipe;
use onnxq_rewrite as rewrite;
use onnxq_run::{
    data::Dataset,
    engine::{IoInfo, Runtime, Session, SessionOptions},
};

/// A model as it was read.
pub struct Opened {
    pub model: Model,
    pub files: Files,
    pub warnings: Vec<Warning>,
    pub before: Census,
    pub options: OpenOptions,
    /// Weights of half floats are read as float32: those that are left are stored as they were.
    pub(super) widened: bool,
    /// What the model was built of, if the result is a GGUF file.
    pub(super) gguf: Option<Arc<Target>>,
}

/// A model after the recipe's `prepare` steps: fused, with known shapes. `before` is still what was
/// read.
pub struct Prepared(pub(super) Opened);

/// What a model consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Census {
    pub bytes: u64,
    pub nodes: usize,
    pub initializers: usize,
    pub ops: BTreeMap<String, usize>,
}

impl Opened {
    /// Reads a model from a file.
    pub fn read(path: &Path, options: &OpenOptions, ctx: &Ctx) -> Result<Opened, Error> {
        Ok(Opened::of(onnxq_formats::open(path, options)?, options, ctx))
    }

    /// Reads a model for a recipe: one whose results are GGUF files wants a checkpoint.
    pub fn read_for(
        path: &Path,
        options: &OpenOptions,
        recipe: &Recipe,
        ctx: &Ctx,
    ) -> Result<Opened, Error> {
        if !recipe.is_gguf() {
            return Opened::read(path, options, ctx);
        }
        let checkpoint = onnxq_formats::open_checkpoint(path, options.external)?;
        let loaded = onnxq_formats::build(&checkpoint, Form::Standard)?;
        let opened = Opened::of(loaded, options, ctx);
        Ok(Opened { gguf: Some(Arc::new(Target::new(checkpoint)?)), ..opened })
    }

    /// What was read already.
    pub fn of(loaded: Loaded, options: &OpenOptions, ctx: &Ctx) -> Opened {
        let Loaded { mut model, files, mut warnings } = loaded;
        warnings.extend(wrong_shapes(&model));
        if !options.keep_inputs {
            warnings.extend(overridable(&mut model));
        }
        let before = Census::of(&model, files.size());
        ctx.progress.start("read", 0);
        ctx.progress.done(&describe_input(&model, &before, &files));
        warnings.iter().for_each(|it| ctx.progress.warn(it));
        let (widened, gguf) = (false, None);
        Opened { model, files, warnings, before, options: *options, widened, gguf }
    }

    /// Rewrites the model as the recipe says.
    pub fn prepare(mut self, job: &Job) -> Result<Prepared, Error> {
        if let Some(data) = &job.inputs.data {
            self.forget_untrue_names(data, &job.inputs.runtime, job.ctx)?;
        }
        let progress = job.ctx.progress;
        progress.start("prepare", 0);
        let checkpoint = self.gguf.as_ref().map(|it| &it.checkpoint);
        if let Some(checkpoint) = checkpoint.filter(|it| it.is_guessed) {
            let (built, runtime) = ((&self.model, &self.files), &job.inputs.runtime);
            let original = (&*self.files.model, &self.options);
            gguf::prove(original, built, &checkpoint.architecture, runtime, job.ctx)?;
        }
        let names = match &self.gguf {
            // Weights must stay those that the file will have.
            Some(_) => AS_BUILT.to_vec(),
            None => job.recipe.prepare(rewrite::STANDARD),
        };
        let mut steps = rewrite::run(&mut self.model, WIDEN, job.ctx)?;
        self.widened = steps.iter().any(|it| it.0 == WIDEN[1] && it.1 > 0);
        steps.extend(rewrite::run(&mut self.model, &names, job.ctx)?);
        progress.done(&describe_steps(self.before.nodes, self.model.nodes().len(), &steps));
        Ok(Prepared(self))
    }
}

impl Opened {
    /// Forgets names of dimensions that the data disproves, if the model runs with it.
    pub fn forget_untrue_names(
        &mut self,
        data: &Dataset,
        runtime: &Runtime,
        ctx: &Ctx,
    ) -> Result<(), Error> {
        let batches = |inputs: &[IoInfo]| Ok(data.batches(inputs)?);
        let untrue = untrue::forget(&mut self.model, &self.files, &batches, runtime)?;
        untrue.iter().for_each(|it| ctx.progress.warn(it));
        self.warnings.extend(untrue);
        Ok(())
    }
}

/// What a graph needs that was built of a checkpoint.
const AS_BUILT: &[&str] = &["transpose-of-constant", "infer-types"];

/// Before all else: what is behind a Cast is a weight too.
const WIDEN: &[&str] = &["constant-to-initializer", "widen-constants"];

/// Weights that the file lists among the inputs become constants.
fn overridable(model: &mut Model) -> Option<Warning> {
    let names = model.inputs_to_constants();
    let first = Untrusted(names.first()?);
    let more = match names.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let text = format!(
        "inputs with a default are taken as constants: `{first}`{more}; --keep-inputs leaves them"
    );
    Some(Warning::new(Code::W404, text))
}

/// What the file states of outputs and cannot be.
fn wrong_shapes(model: &Model) -> impl Iterator<Item = Warning> {
    infer::contradictions(model).into_iter().map(|(id, actual)| {
        let output = model.value(id);
        let stated = output.ty.as_ref().map_or(String::new(), |it| it.to_string());
        let (name, actual) = (Untrusted(&output.name), actual.to_string());
        let [stated, actual] = [&stated, &actual].map(|it| Untrusted(it));
        Warning::remark(format!(
            "output `{name}` is stated to be {stated}, but the model computes {actual}, which counts"
        ))
    })
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

/// A session of a model in memory, which `what` names; its weights stay where they are.
pub(crate) fn session(
    model: &Model,
    files: &Files,
    what: &str,
    options: &SessionOptions,
    runtime: &Runtime,
) -> Result<Box<dyn Session>, Error> {
    runtime.check(model, what)?;
    let attached = onnx::attach(model, files)?;
    Ok(runtime.open_bytes(&attached.graph, Some(Attached::folder()), options)?)
}
