//! A file gets its place when it was read back and ONNX Runtime took it.

use std::path::Path;

use super::{Error, Execution, Opened, Staged, execution, write::read_back};
use onnxq_ir::{
    Model,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::{self, Files, Loaded, OpenOptions, SaveOptions, Saved},
    untrusted::escape,
};
use onnxq_run::engine::Runtime;

/// Where a model goes, and who must take it.
pub struct Destination<'a> {
    pub path: &'a Path,
    pub save: SaveOptions,
    /// Asked to open the file, if it is there: nothing is installed for that.
    pub runtime: Runtime<'a>,
    /// The result is for another runtime: one that refuses it here is a warning.
    pub allow_refused: bool,
}

/// A file that was written, and what it became.
pub struct Delivered {
    pub saved: Saved,
    pub written: Loaded,
    pub execution: Execution,
}

impl<'a> Destination<'a> {
    /// A place in which only what ONNX Runtime takes is written.
    pub fn new(path: &'a Path, save: SaveOptions, runtime: Runtime<'a>) -> Destination<'a> {
        Destination { path, save, runtime, allow_refused: false }
    }

    /// Writes `model`, which was made of `files`, beside its destination, reads it back, lets ONNX
    /// Runtime open it and moves it. Where the original is refused too, the result cannot be checked.
    ///
    /// # Errors
    /// What saving and reading say; E804 if ONNX Runtime refuses the result and takes the
    /// original. Nothing lies at the destination then.
    pub fn deliver(
        &self,
        (model, files): (&Model, &Files),
        open: &OpenOptions,
        ctx: &Ctx,
    ) -> Result<Delivered, Error> {
        self.runtime.check_custom_ops()?;
        onnx::check_destination(model, self.path, &self.save, Some(files))?;
        let staged = Staged::new(self.path, self.save.force)?;
        let shown = staged.shown(ctx.progress);
        let ctx = Ctx { progress: &shown, trace: ctx.trace, max_rewrites: ctx.max_rewrites };
        let mut saved = onnx::save(model, &staged.path(), &self.save, Some(files), &ctx)?;
        let written = read_back(&staged.path(), open)?;
        ctx.progress.start("check", 0);
        let execution = execution(&written.model, &written.files, &self.runtime);
        let execution = self.accepted(execution, &files.model, open)?;
        ctx.progress.done(execution.verdict());
        staged.accept()?;
        for (path, _) in &mut saved.files {
            *path = self.path.with_file_name(path.file_name().unwrap_or_default());
        }
        Ok(Delivered { saved, written, execution })
    }

    fn accepted(
        &self,
        execution: Execution,
        original: &Path,
        open: &OpenOptions,
    ) -> Result<Execution, Error> {
        let Execution::Refused { onnxruntime, message } = execution else { return Ok(execution) };
        if self.allow_refused {
            return Ok(Execution::Refused { onnxruntime, message });
        }
        match self.refusal_of(original, open) {
            Some(theirs) => Ok(Execution::NotChecked(format!(
                "ONNX Runtime refuses the original too: {}",
                escape(&theirs)
            ))),
            None => Err(ResultRefused { version: onnxruntime, message }.into()),
        }
    }

    /// Why ONNX Runtime refuses the original, if it does.
    fn refusal_of(&self, original: &Path, open: &OpenOptions) -> Option<String> {
        let original = Opened::read(original, open, &Ctx::silent()).ok()?;
        match execution(&original.model, &original.files, &self.runtime) {
            Execution::Refused { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// The result is a file that ONNX Runtime does not open, and so there is none.
#[derive(Debug, thiserror::Error)]
#[error("ONNX Runtime {version} refuses the result, so nothing was written: {}", escape(.message))]
pub struct ResultRefused {
    pub version: String,
    pub message: String,
}

impl Diagnostic for ResultRefused {
    fn code(&self) -> Code {
        Code::E804
    }

    fn hint(&self) -> Option<String> {
        let of_kernel = self.message.contains("Could not find an implementation");
        Some(match of_kernel {
            true => {
                "its CPU kernels lack this type or version: add --allow-refused to write the file \
                     for a runtime that has it (CUDA has bfloat16)"
                    .to_owned()
            }
            false => "leave the named node out (--exclude NODE, of `quantize`), or add \
                      --allow-refused to write the file all the same"
                .to_owned(),
        })
    }
}
