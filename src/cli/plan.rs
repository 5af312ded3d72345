//! `onnxq plan`: what a recipe would do to each node of a model, and why.

use std::path::PathBuf;

use super::{
    Failure, Ui,
    shared::{InputArgs, RecipeArgs},
    show,
};
use crate::pipeline::{self, Job};
use onnxq_ir::{diag::EXIT_NOTHING, onnx::SaveOptions, text};
use onnxq_quant::sources::Sources;

/// Say what a recipe would do to each node, why, and how large the result would be
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print the model as it would be written, in the ONNX text syntax
    #[arg(long)]
    pub text: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let job = Job {
            model: self.model.clone(),
            recipe: self.recipe.load()?,
            open: self.input.options(),
            skip_nonfinite: false,
            goal: None,
        };
        let output = self.model.with_extension("q.onnx");
        let mut planned = pipeline::plan(&job, &ui.ctx())?;
        planned.outline(&job)?;
        planned.lower(Sources::default(), &ui.ctx())?;
        // Before the recipe's name and our version are added, which are no part of the plan.
        let text = self.text.then(|| text::print(&planned.model));
        let outcome = planned.dry_run(&job, &output, &SaveOptions::default())?;
        match text {
            Some(text) => ui.print(&(show::comment(&show::plan(&outcome.nodes)) + &text))?,
            None if ui.global.json => ui.print_json(&outcome)?,
            None => ui.print(&(show::plan(&outcome.nodes) + &show::planned(&outcome)))?,
        }
        Ok(if outcome.quantized_nodes == 0 { EXIT_NOTHING } else { 0 })
    }
}
