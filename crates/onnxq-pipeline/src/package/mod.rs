//! A model becomes a folder that also holds its weights as the kernels of this machine read them.
//!
//! The plain model lies at its usual place, with what clients read beside it, so that the folder serves
//! any client on any machine; `prepacked/` and `package.json` are ours. Everything is written beside the
//! destination and moved at the end.

mod check;
mod compared;
mod made;
mod pack;
mod remake;
mod sources;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::{pack::pack, sources::Sources};
use crate::{
    Error,
    import::folder::{BESIDE, Folder},
};
use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic, Warning},
    onnx::OpenOptions,
    untrusted::{Untrusted, escape},
};
use onnxq_run::{
    data::Dataset,
    engine::{
        Runtime,
        package::{MANIFEST, Machine, Manifest, PackedModel, SCHEMA},
    },
};

pub use self::{
    check::{Checked, CheckedFile, check},
    pack::PackagedModel,
    remake::remake,
};

/// What to package.
pub struct Package<'a> {
    /// A model, or a folder with models.
    pub model: &'a Path,
    pub output: &'a Path,
    pub how: Packing<'a>,
    /// Replace the folder if it exists.
    pub force: bool,
}

/// How weights are packed, and the result compared.
pub struct Packing<'a> {
    pub runtime: Runtime<'a>,
    pub open: OpenOptions,
    /// Samples to compare on; without them inputs are made up, which is enough for equality.
    pub data: Option<Dataset>,
    /// Threads of a session; 0: one per core.
    pub threads: usize,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Packaged {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub output: PathBuf,
    pub onnxruntime: String,
    pub machine: Machine,
    pub models: Vec<PackagedModel>,
    /// Every file of the folder, in alphabetical order.
    pub files: Vec<String>,
    /// Files beside the model that no client reads, which were not copied.
    pub left: Vec<String>,
    pub warnings: Vec<Warning>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    #[error("{} has no .onnx file, and neither has its folder `onnx`", .0.display())]
    NoModel(PathBuf),
    #[error("{} is no .onnx file", .0.display())]
    NotOnnx(PathBuf),
    #[error("{} holds the model itself, and would be replaced", .0.display())]
    Onto(PathBuf),
    #[error("{} is no package: `{MANIFEST}` {reason}", folder.display())]
    NoPackage { folder: PathBuf, reason: String },
    #[error("{count} of the files of {} {changed} not what they were", folder.display())]
    Changed { folder: PathBuf, count: usize, changed: &'static str },
    #[error("packed, `{model}` answers otherwise: output `{}` differs", Untrusted(output))]
    Differs { model: String, output: String },
    #[error("packed, `{model}` cannot be loaded: {}", escape(reason))]
    NotLoaded { model: String, reason: String },
    #[error("`{model}` runs on no inputs that could be made up: {}", escape(reason))]
    NoInputs { model: String, reason: String },
}

impl Diagnostic for PackageError {
    fn code(&self) -> Code {
        match self {
            PackageError::Differs { .. } | PackageError::NotLoaded { .. } => Code::E630,
            PackageError::NoPackage { .. } | PackageError::Changed { .. } => Code::E631,
            PackageError::NoModel(_) | PackageError::NotOnnx(_) => Code::E632,
            PackageError::NoInputs { .. } => Code::E633,
            PackageError::Onto(_) => Code::E904,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            PackageError::Differs { .. } | PackageError::NotLoaded { .. } => {
                "nothing was written; the plain model works without a package".into()
            }
            PackageError::NoPackage { .. } => {
                "name a folder that `onnxq package MODEL -o FOLDER` made".into()
            }
            PackageError::Changed { .. } => {
                "if the plain model is right, pack it again with --remake; else make the package of \
                 the model it came from"
                    .into()
            }
            PackageError::NoModel(_) => {
                "of a checkpoint, `onnxq import` makes a folder with models".into()
            }
            PackageError::Onto(_) => {
                "name another folder; --remake packs the models of a package again".into()
            }
            PackageError::NotOnnx(_) => "name a file that ends with .onnx, or a folder".into(),
            PackageError::NoInputs { .. } => {
                "pass --data with a sample that the model can run on".into()
            }
        })
    }
}

/// Files of clients beside those of a checkpoint.
const CLIENTS: &[&str] = &["README.md", "genai_config.json", "labels.txt"];

/// Makes the folder.
///
/// # Errors
/// E632 if there is no model, E903 and E904 if the folder exists or has it, E630 and E633 if the packed form does not answer
/// the same or that cannot be seen, and what reading and ONNX Runtime say.
pub fn package(job: &Package, ctx: &Ctx) -> Result<Packaged, Error> {
    let sources = Sources::of(job.model)?;
    if holds(job.output, &sources.root) {
        return Err(PackageError::Onto(job.output.to_owned()).into());
    }
    let mut folder = Folder::new(job.output, job.force)?;
    let shown = folder.shown(ctx.progress);
    let ctx = &Ctx { progress: &shown, ..*ctx };
    let beside: Vec<&str> = BESIDE.iter().chain(CLIENTS).copied().collect();
    folder.copy(&sources.root, &beside, "")?;
    if sources.root.join("onnx").is_dir() {
        folder.copy(&sources.root.join("onnx"), &beside, "onnx")?;
    }
    let mut plain = Vec::new();
    for place in &sources.models {
        plain.push(sources.copy(place, &mut folder, &job.how)?);
    }
    let root = folder.root().to_owned();
    let (models, rows) = pack_all(&root, (&root, &plain), &job.how, ctx)?;
    let manifest = manifest(&job.how.runtime, models)?;
    folder.write(MANIFEST, &manifest.text())?;
    let left = sources.left(&root);
    let warnings = [left_behind(&left), unpacked(&rows, &manifest)].concat();
    warnings.iter().for_each(|it| ctx.progress.warn(it));
    let files = folder.persist()?;
    Ok(packaged(job.output, manifest, (rows, files), (left, warnings)))
}

/// Whether the models lie in the folder that is to be replaced.
fn holds(output: &Path, root: &Path) -> bool {
    match (output.canonicalize(), root.canonicalize()) {
        (Ok(output), Ok(root)) => root.starts_with(output),
        _ => false,
    }
}

/// Packs models whose plain files, graph first, lie in `root`; the result goes into `target`.
fn pack_all(
    target: &Path,
    (root, plain): (&Path, &[Vec<String>]),
    how: &Packing,
    ctx: &Ctx,
) -> Result<(Vec<PackedModel>, Vec<PackagedModel>), Error> {
    let mut packed = Vec::new();
    for files in plain {
        ctx.progress.start("pack", 0);
        let (model, row) = pack((root, files), target, how)?;
        ctx.progress.done(&row.summary());
        packed.push((model, row));
    }
    Ok(packed.into_iter().unzip())
}

fn manifest(runtime: &Runtime, models: Vec<PackedModel>) -> Result<Manifest, Error> {
    Ok(Manifest {
        schema: SCHEMA.to_owned(),
        onnxq: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: runtime.ensure()?.version,
        machine: Machine::of_process(),
        models,
    })
}

fn packaged(
    output: &Path,
    manifest: Manifest,
    (models, files): (Vec<PackagedModel>, Vec<String>),
    (left, warnings): (Vec<String>, Vec<Warning>),
) -> Packaged {
    Packaged {
        schema: "onnxq.packaged/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        output: output.to_owned(),
        onnxruntime: manifest.onnxruntime,
        machine: manifest.machine,
        models,
        files,
        left,
        warnings,
    }
}

/// Models of which nothing was packed: either nothing is to be, or the library cannot store what it packs.
fn unpacked(rows: &[PackagedModel], manifest: &Manifest) -> Vec<Warning> {
    let warning = |row: &PackagedModel| {
        Warning::remark(format!(
            "ONNX Runtime {} stored no packed weight of `{}`: processes share what is mapped, and what \
             kernels pack while loading is their own",
            manifest.onnxruntime, row.file
        ))
    };
    rows.iter().filter(|it| it.weights.packed == 0).map(warning).collect()
}

fn left_behind(left: &[String]) -> Vec<Warning> {
    const SHOWN: usize = 5;
    let names: Vec<String> =
        left.iter().take(SHOWN).map(|it| format!("`{}`", Untrusted(it))).collect();
    let more = left.len().saturating_sub(SHOWN);
    let and = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!("not copied, because no client reads it: {}{and}", names.join(", "));
    (!left.is_empty()).then(|| Warning::remark(text)).into_iter().collect()
}
