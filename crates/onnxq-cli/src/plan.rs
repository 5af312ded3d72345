//! `onnxq plan`: what a recipe would do to each node of a model, and why.

use std::path::PathBuf;

use super::{
    Failure, Ui,
    shared::{InputArgs, RecipeArgs},
    show,
    stream::receive,
};
use onnxq_ir::{diag::EXIT_NOTHING, onnx::SaveOptions, text};
use onnxq_pipeline::{self as pipeline, Inputs, Job, Opened};

/// Say what a recipe would do to each node, why, and how large the result would be
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt, or `-` for standard input
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
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let stdin = receive([&mut self.model])?;
        let (recipe, inputs) = (self.recipe.load(ui)?, Inputs::default());
        let ctx = ui.ctx();
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
        let model = Opened::read_for(&self.model, &self.input.options(), &recipe, &ctx)?;
        let lowered = pipeline::outline(model, &job)?;
        // Before the recipe's name and our version are added, which are no part of the plan.
        let text = self.text.then(|| text::print(&lowered.model));
        let output = self.model.with_extension("q.onnx");
        let mut outcome = lowered.predict(&output, &SaveOptions::default(), &job)?;
        outcome.model = stdin.shown(&self.model).into();
        match text {
            Some(text) => ui.print(&(show::comment(&show::plan(&outcome.nodes)) + &text))?,
            None if ui.global.json => ui.print_json(&outcome)?,
            None => ui.print(&(show::plan(&outcome.nodes) + &show::planned(&outcome)))?,
        }
        Ok(if outcome.quantized_nodes == 0 { EXIT_NOTHING } else { 0 })
    }
}
