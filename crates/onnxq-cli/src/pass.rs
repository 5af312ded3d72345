//! `onnxq pass`: named passes and rules, one after the other.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{
    Failure, Ui,
    shared::{AcceptArgs, InputArgs},
    stream::{Output, receive},
};
use onnxq_ir::{
    ctx::{Ctx, Progress},
    onnx::SaveOptions,
    untrusted::escape,
};
use onnxq_pipeline as pipeline;

/// Run named passes or rules on a model
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passes and rules to run, in order, and last the model: .onnx or .onnxtxt, or `-` for standard input. `standard` is what
    /// `quantize` does to a model first; without names the model is printed as it was read
    #[arg(value_name = "NAME... MODEL", required = true, num_args = 1..)]
    pub names_and_model: Vec<String>,
    /// Say of each rule where it fired and why it did not
    #[arg(long)]
    pub trace: bool,
    /// Stop after this many rewrites, to find the one that breaks a model
    #[arg(long, value_name = "N")]
    pub max_rewrites: Option<usize>,
    /// Where to write the result; `-` is standard output [default: its text to stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub accept: AcceptArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    /// The names, and the model after them.
    pub fn split(&self) -> (&[String], PathBuf) {
        match self.names_and_model.split_last() {
            Some((model, names)) => (names, PathBuf::from(model)),
            None => (&[], PathBuf::new()),
        }
    }
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let (names, mut path) = self.split();
        let _stdin = receive([&mut path])?;
        let mut loaded = onnxq_formats::open(&path, &self.input.options())?;
        loaded.warnings.iter().for_each(|it| ui.warn(it));
        let output = self.output.as_deref().map(|path| Output::at(path, ui)).transpose()?;
        let trace = Mutex::new(Vec::new());
        let max_rewrites = self.max_rewrites.unwrap_or(usize::MAX);
        let ctx = Ctx { trace: self.trace.then_some(&trace), max_rewrites, ..ui.ctx() };
        let steps = pipeline::rewrite(&mut loaded.model, names, &ctx)?;
        let lines: String = trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|it| format!("# {}\n", escape(it)))
            .collect();
        let Some(output) = output else {
            let text = onnxq_ir::text::print(&loaded.model);
            ui.print(&(lines + &text))?;
            return Ok(0);
        };
        ui.print(&lines)?;
        let save = output.save(SaveOptions { force: self.force, ..SaveOptions::default() })?;
        let named = output.progress(ui);
        let ctx = Ctx { progress: &named, ..ctx };
        let place = self.accept.destination(output.path(), save, ui);
        let done = place.deliver((&loaded.model, &loaded.files), &self.input.options(), &ctx);
        done.map_err(|error| output.explained(error.into()))?;
        output.deliver()?;
        for (name, count) in steps {
            ui.note(&format!("{name}: {count}"));
        }
        Ok(0)
    }
}
