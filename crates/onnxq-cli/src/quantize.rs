//! `onnxq quantize`: the main job.

mod asked;
mod judged;

use std::path::{Path, PathBuf};

use super::{
    Failure, Ui,
    outputs::OutputArgs,
    shared::{
        CalibrationArgs, DataArgs, InputArgs, MeasureArgs, NoData, Nonfinite, RecipeArgs,
        external_data, size,
    },
    show,
};
use onnxq_ir::{
    ctx::Ctx,
    diag::{EXIT_GATE, EXIT_NOTHING},
    onnx::{ExternalData, SaveOptions},
};
use onnxq_pipeline::{self as pipeline, Goal, Inputs, Job, Opened, Outcome, OutputFile, Quantized};
use onnxq_quant::recipe::Recipe;
use onnxq_report::Report;

/// Quantize a model by a recipe
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Where to write the result; its weights go beside it if they are large
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Compare the result with the original on data: that of --data, or this. Gates, a baseline, data
    /// and reports ask for it too. A result that misses a gate goes to OUTPUT.rejected
    #[arg(long, value_name = "DATA", num_args = 0..=1, require_equals = true)]
    pub validate: Option<Option<PathBuf>>,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    #[command(flatten)]
    pub goal: GoalArgs,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Whether weights go into a file of their own
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = external_data())]
    pub external_data: ExternalData,
    /// What to do with a weight that holds NaN or Inf
    #[arg(long, value_name = "ACTION", default_value = "error")]
    pub nonfinite: Nonfinite,
    /// Exit with 0 even if nothing could be quantized
    #[arg(long)]
    pub allow_noop: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub reports: OutputArgs,
}

/// Choose bits and block of each weight by what they cost, measured on --calibration
#[derive(Debug, clap::Args)]
#[group(id = "goal", multiple = false, conflicts_with = "dry_run")]
pub struct GoalArgs {
    /// The best mix of bits whose files take at most so much together
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// The smallest mix of bits whose mean KL divergence is at most so much on --calibration
    #[arg(long, value_name = "NATS", value_parser = positive)]
    pub max_kl: Option<f64>,
    /// The best mix of at most so many bits per weight, scales and zero points included
    #[arg(long, value_name = "BITS", value_parser = positive)]
    pub target_bpw: Option<f64>,
}

impl GoalArgs {
    fn goal(&self) -> Option<Goal> {
        let size = self.max_size.map(Goal::MaxSize);
        size.or(self.max_kl.map(Goal::MaxKl)).or(self.target_bpw.map(Goal::TargetBpw))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(it) if it > 0.0 && it.is_finite() => Ok(it),
        _ => Err("must be a number above 0".to_owned()),
    }
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let recipe = self.recipe.load()?;
        let gates = self.data.gates(Some(&recipe))?;
        let data = self.comparison(&recipe)?;
        let save =
            SaveOptions { external: self.external_data, force: self.force, ..Default::default() };
        ui.note(&format!("onnxq {} · recipe {}", env!("CARGO_PKG_VERSION"), recipe.name));
        let mut inputs = self.calibration.inputs((&self.data.from, &self.model), &recipe, ui);
        inputs.skip_nonfinite = self.nonfinite == Nonfinite::Skip;
        inputs.goal = self.goal.goal();
        inputs.allow_noop = self.allow_noop;
        if self.dry_run {
            return self.outline(&recipe, &inputs, &save, ui);
        }
        let output = self.output.as_deref().unwrap_or(Path::new(""));
        save.check_free(output)?;
        inputs.output = OutputFile { path: Some(output.to_owned()), save };
        let Some(data) = data else {
            let outcome = self.quantize(output, &recipe, &inputs, &save, &ui.ctx())?;
            let code = report(ui, &outcome, None, self.allow_noop)?;
            if code == 0 {
                let (model, output) = (self.model.display(), output.display());
                ui.note(&format!("next: onnxq validate {model} {output} --data …"));
            }
            return Ok(code);
        };
        self.judged((output, &data), (&recipe, &gates), &inputs, &save, ui)
    }

    /// Says what would be written.
    fn outline(
        &self,
        recipe: &Recipe,
        inputs: &Inputs,
        save: &SaveOptions,
        ui: &Ui,
    ) -> Result<u8, Failure> {
        let ctx = ui.ctx();
        let job = Job { recipe, inputs, ctx: &ctx };
        let output = self.output.clone().unwrap_or_else(|| self.model.with_extension("q.onnx"));
        let opened = Opened::read(&self.model, &self.input.options(), &ctx)?;
        let outcome = pipeline::outline(opened, &job)?.predict(&output, save, &job)?;
        report(ui, &outcome, None, self.allow_noop)
    }

    /// Writes the result, unless there is nothing to quantize.
    fn quantize(
        &self,
        output: &Path,
        recipe: &Recipe,
        inputs: &Inputs,
        save: &SaveOptions,
        ctx: &Ctx,
    ) -> Result<Outcome, Failure> {
        let job = Job { recipe, inputs, ctx };
        let model = Opened::read(&self.model, &self.input.options(), ctx)?;
        Ok(match pipeline::quantize(model, &job)? {
            Quantized::Lowered(lowered) => lowered.write(output, save, &job)?,
            Quantized::Nothing(outcome) => *outcome,
        })
    }
}

fn report(
    ui: &Ui,
    outcome: &Outcome,
    validation: Option<&Report>,
    allow_noop: bool,
) -> Result<u8, Failure> {
    if ui.global.json {
        ui.print_json(&serde_json::json!({"quantize": outcome, "validate": validation}))?;
    } else {
        ui.print(&show::outcome(outcome, validation))?;
    }
    Ok(exit_code(outcome, validation, allow_noop))
}

fn exit_code(outcome: &Outcome, validation: Option<&Report>, allow_noop: bool) -> u8 {
    match validation {
        Some(it) if !it.passes() => EXIT_GATE,
        _ if outcome.quantized_nodes == 0 && !allow_noop => EXIT_NOTHING,
        _ => 0,
    }
}
