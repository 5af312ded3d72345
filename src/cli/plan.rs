//! `onnxq plan`: what a recipe would do to each node of a model, and why.

use std::path::PathBuf;

use super::{
    Failure, Ui,
    shared::{InputArgs, RecipeArgs},
    show,
};
use crate::{
    codes::EXIT_NOTHING,
    onnx::SaveOptions,
    pipeline::{self, Job},
};

/// Say what a recipe would do to each node, why, and how large the result would be
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
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
        };
        let output = self.model.with_extension("q.onnx");
        let outcome = pipeline::dry_run(&job, &output, &SaveOptions::default(), &ui.ctx())?;
        if ui.global.json {
            ui.print_json(&outcome)?;
        } else {
            ui.print(&(show::plan(&outcome.nodes) + &show::outcome(&outcome, None)))?;
        }
        Ok(if outcome.quantized_nodes == 0 { EXIT_NOTHING } else { 0 })
    }
}
