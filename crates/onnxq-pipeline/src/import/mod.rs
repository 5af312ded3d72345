//! A checkpoint becomes a folder that a client loads: models by several recipes, with what lies beside
//! them. Everything is written to a folder beside the destination and moved there at the end, so that
//! there is all of it or nothing.

pub(crate) mod folder;
mod genai;
mod hf;
mod layout;
mod plain;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::folder::Folder;
pub use self::layout::{LAYOUTS, Layout};
use super::{Destination, Error, Inputs, Job, Opened, Outcome, OutputFile, Quantized, origin};
use onnxq_formats::{Checkpoint, build, gguf};
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic, Warning},
    onnx::{ExternalPolicy, OpenOptions, SaveOptions},
    releases::Needed,
};
use onnxq_quant::recipe::Recipe;
use onnxq_rewrite as rewrite;
use onnxq_run::engine::Runtime;

/// What to make of a checkpoint.
pub struct Import<'a> {
    pub checkpoint: &'a Path,
    pub output: &'a Path,
    pub layout: &'static Layout,
    /// A model for each; `None` is the float model.
    pub recipes: &'a [Option<Recipe>],
    /// What each recipe learns from.
    pub inputs: &'a dyn Fn(&Recipe) -> Inputs<'a>,
    /// Opens what was written.
    pub runtime: Runtime<'a>,
    /// Which links of the checkpoint's files are followed.
    pub policy: ExternalPolicy,
    /// Replace the folder if it exists.
    pub force: bool,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub checkpoint: PathBuf,
    pub model_type: String,
    pub output: PathBuf,
    pub layout: &'static str,
    pub models: Vec<ImportedModel>,
    /// Every file of the folder, in alphabetical order.
    pub files: Vec<String>,
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ImportedModel {
    /// `float` for the model that no recipe changed.
    pub recipe: String,
    /// Its place in the folder.
    pub file: String,
    /// With its external data.
    pub bytes: u64,
    pub nodes: usize,
    /// Which ONNX Runtime computes it.
    pub needs: Needed,
    /// `None` for the float model.
    pub quantized: Option<Outcome>,
}

/// The word for the model that no recipe changes.
pub const FLOAT: &str = "float";

/// Rewrites of a finished model: what looks for residual streams does not know their results.
const LAST: &[&str] = &["infer-types", "fuse-skip-rmsnorm"];

#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("recipe `{recipe}` and recipe `{other}` would both be {file} in layout `{layout}`")]
    SameFile { recipe: String, other: String, file: String, layout: &'static str },
    #[error("recipe `{recipe}` can quantize nothing in {}", checkpoint.display())]
    Noop { recipe: String, checkpoint: PathBuf },
    #[error("layout `{layout}` holds decoders only, and `{model_type}` is none")]
    NoDecoder { layout: &'static str, model_type: String },
}

impl Diagnostic for ImportError {
    fn code(&self) -> Code {
        match self {
            ImportError::SameFile { .. } | ImportError::NoDecoder { .. } => Code::E126,
            ImportError::Noop { .. } => Code::N001,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ImportError::SameFile { .. } => "import them into folders of their own".into(),
            ImportError::NoDecoder { .. } => "take --layout hf or plain".into(),
            ImportError::Noop { .. } => "take another recipe".into(),
        })
    }
}

/// Makes the folder.
///
/// # Errors
/// E12x if the checkpoint or the layout does not fit, E903 if the folder exists, and what
/// [`quantize`](super::quantize()) says.
pub fn import(job: &Import, ctx: &Ctx) -> Result<Imported, Error> {
    let mut folder = Folder::new(job.output, job.force)?;
    let checkpoint = Checkpoint::open(job.checkpoint, job.policy)?;
    let architecture = &checkpoint.architecture;
    if job.layout.decoders_only && !architecture.is_decoder() {
        let model_type = architecture.model_type.clone();
        return Err(ImportError::NoDecoder { layout: job.layout.name, model_type }.into());
    }
    let files = file_names(job)?;
    // What a folder has beside the weights, a GGUF file has in itself.
    let texts = match gguf::is_gguf(job.checkpoint) {
        true => gguf::vocab::files(job.checkpoint)?,
        false => Vec::new(),
    };
    let shown = folder.shown(ctx.progress);
    let ctx = &Ctx { progress: &shown, ..*ctx };
    let mut models = Vec::new();
    for (recipe, file) in job.recipes.iter().zip(files) {
        let path = folder.path(&file)?;
        models.push(match recipe {
            None => float(job, &checkpoint, (&path, file), ctx)?,
            Some(recipe) => quantized(job, &checkpoint, recipe, (&path, file), ctx)?,
        });
    }
    folder.copy(&checkpoint.folder, folder::BESIDE, "")?;
    for (file, json) in &texts {
        folder.write(file, &format!("{json:#}\n"))?;
    }
    let warnings = (job.layout.finish)(&mut folder, &checkpoint, &models)?;
    warnings.iter().for_each(|it| ctx.progress.warn(it));
    let files = folder.persist()?;
    Ok(Imported {
        schema: "onnxq.import/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        checkpoint: job.checkpoint.to_owned(),
        model_type: checkpoint.architecture.model_type,
        output: job.output.to_owned(),
        layout: job.layout.name,
        models,
        files,
        warnings,
    })
}

/// Where each model goes; two at one place are an error.
fn file_names(job: &Import) -> Result<Vec<String>, Error> {
    let name = |it: &Option<Recipe>| it.as_ref().map_or(FLOAT, |it| &*it.name).to_owned();
    let names: Vec<String> = job.recipes.iter().map(name).collect();
    let mut files: Vec<String> = Vec::new();
    for (at, recipe) in names.iter().enumerate() {
        let file = (job.layout.file)(recipe, names.len());
        if let Some(other) = files.iter().position(|it| *it == file) {
            let (recipe, other) = (names[at].clone(), names[other].clone());
            let layout = job.layout.name;
            return Err(ImportError::SameFile { recipe, other, file, layout }.into());
        }
        files.push(file);
    }
    Ok(files)
}

fn opened(job: &Import, checkpoint: &Checkpoint, ctx: &Ctx) -> Result<Opened, Error> {
    let mut loaded = build(checkpoint, (job.layout.form)(&checkpoint.architecture))?;
    let model = &mut loaded.model;
    let outputs = model.graph(model.main).outputs.clone();
    if let Some(it) = outputs.into_iter().find(|it| &*model.value(*it).name == "token_embeddings") {
        model.value_mut(it).name = job.layout.vectors.into();
    }
    Ok(Opened::of(loaded, &OpenOptions::default(), ctx))
}

fn save_options(job: &Import) -> SaveOptions {
    SaveOptions { external: job.layout.external, force: false, ending: job.layout.ending }
}

fn float(
    job: &Import,
    checkpoint: &Checkpoint,
    (path, file): (&Path, String),
    ctx: &Ctx,
) -> Result<ImportedModel, Error> {
    let Opened { mut model, files, options, .. } = opened(job, checkpoint, ctx)?;
    rewrite::run(&mut model, &steps(), ctx)?;
    model.verify()?;
    origin::mark_imported(&mut model, job.checkpoint, &files)?;
    let place = Destination::new(path, save_options(job), job.runtime.clone());
    let saved = place.deliver((&model, &files), &options, ctx)?.saved;
    Ok(ImportedModel {
        recipe: FLOAT.to_owned(),
        file,
        bytes: saved.bytes(),
        nodes: model.nodes().len(),
        needs: Needed::by(&model),
        quantized: None,
    })
}

fn steps() -> Vec<String> {
    LAST.iter().map(|it| (*it).to_owned()).collect()
}

fn quantized(
    job: &Import,
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    (path, file): (&Path, String),
    ctx: &Ctx,
) -> Result<ImportedModel, Error> {
    let mut inputs = (job.inputs)(recipe);
    let save = save_options(job);
    inputs.output = OutputFile { path: Some(path.to_owned()), save };
    let own = Job { recipe, inputs: &inputs, ctx };
    let mut outcome = match super::quantize(opened(job, checkpoint, ctx)?, &own)? {
        Quantized::Lowered(mut lowered) => {
            rewrite::run(&mut lowered.model, &steps(), ctx)?;
            lowered.write(path, &save, &own)?
        }
        Quantized::Nothing(_) => {
            let (recipe, checkpoint) = (recipe.name.clone(), job.checkpoint.to_owned());
            return Err(ImportError::Noop { recipe, checkpoint }.into());
        }
    };
    outcome.output = Some(job.output.join(&file));
    Ok(ImportedModel {
        recipe: recipe.name.clone(),
        file,
        bytes: outcome.after.bytes,
        nodes: outcome.after.nodes,
        needs: outcome.needs.clone().expect("its recipes write ONNX"),
        quantized: Some(outcome),
    })
}
