//! `onnxq quantize`: the main job.

mod asked;
mod judged;

use std::path::{Path, PathBuf};

use super::{
    Failure, Ui,
    outputs::OutputArgs,
    places::{Destination, check_outputs, check_there},
    shared::{
        ADVANCED, AcceptArgs, CalibrationArgs, DataArgs, InputArgs, KeepArgs, MeasureArgs, NoData,
        NoEffect, Nonfinite, RecipeArgs, external_data, size, with_samples,
    },
    show,
    stream::{Output, Received, receive},
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
    /// The float model: .onnx, .onnxtxt or .gguf, the folder of a checkpoint, or `-` for standard input
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub destination: Destination,
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
    #[arg(help_heading = ADVANCED)]
    pub external_data: ExternalData,
    /// What to do with a weight that holds NaN or Inf
    #[arg(long, value_name = "ACTION", default_value = "error", help_heading = ADVANCED)]
    pub nonfinite: Nonfinite,
    /// Exit with 0 even if nothing could be quantized
    #[arg(long, help_heading = ADVANCED)]
    pub allow_noop: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub accept: AcceptArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub reports: OutputArgs,
}

/// Choose the bits of each weight by its error and its size, measured on --calibration
#[derive(Debug, clap::Args)]
#[group(id = "goal", multiple = false, conflicts_with = "dry_run")]
pub struct GoalArgs {
    /// Best accuracy at this file size: 4.6MB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Smallest file whose mean KL divergence on --calibration is at most this
    #[arg(long, value_name = "NATS", value_parser = positive)]
    pub max_kl: Option<f64>,
    /// Best accuracy at this many bits per weight, scales and zero points included
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
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let recipe = self.recipe.load(ui)?;
        let recipe = with_samples(recipe, self.calibration.calibration_samples)?;
        let output = self.destination.resolve(&mut self.validate, &self.model, &recipe)?;
        let output = Output::at(&output, ui)?;
        let stdin = receive([&mut self.model])?;
        self.check_paths(output.path())?;
        let gates = self.data.gates(Some(&recipe))?;
        let data = self.comparison(&recipe)?;
        let save =
            SaveOptions { external: self.external_data, force: self.force, ..Default::default() };
        let save = output.save(save)?;
        ui.note(&format!("onnxq {} · recipe {}", env!("CARGO_PKG_VERSION"), recipe.name));
        let mut inputs = self.calibration.inputs((&self.data.from, &self.model), &recipe, ui);
        inputs.skip_nonfinite = self.nonfinite == Nonfinite::Skip;
        inputs.goal = self.goal.goal();
        inputs.allow_noop = self.allow_noop;
        inputs.allow_refused = self.accept.allow_refused;
        if self.dry_run {
            return self.outline((output.path(), &stdin), &recipe, &inputs, &save, ui);
        }
        if recipe.is_gguf() && self.external_data != ExternalData::Auto {
            let without = "a GGUF file has its weights inside";
            return Err(NoEffect { asked: "--external-data", without }.into());
        }
        save.check_free(output.path())?;
        inputs.output = OutputFile { path: Some(output.path().to_owned()), save };
        match data {
            Some(data) => {
                self.judged((output, &stdin, &data), (&recipe, &gates), &inputs, &save, ui)
            }
            None => self.unjudged((output, &stdin), &recipe, &inputs, &save, ui),
        }
    }

    /// Quantizes to `output`, and says how the result can be compared.
    fn unjudged(
        &self,
        (output, stdin): (Output, &Received),
        recipe: &Recipe,
        inputs: &Inputs,
        save: &SaveOptions,
        ui: &Ui,
    ) -> Result<u8, Failure> {
        let named = output.progress(ui);
        let ctx = Ctx { progress: &named, ..ui.ctx() };
        let outcome = self.quantize(output.path(), recipe, inputs, save, &ctx);
        let mut outcome = outcome.map_err(|failure| output.explained(failure))?;
        let (model, shown) = (stdin.shown(&self.model), output.shown().to_owned());
        outcome.model = model.into();
        outcome.output = outcome.output.map(|_| shown.clone());
        let is_stream = output.is_stream();
        output.deliver()?;
        let code = report(ui, &outcome, None, self.allow_noop)?;
        if code == 0 && !is_stream {
            let (model, output) = (model.display(), shown.display());
            ui.note(&format!("next: onnxq validate {model} {output} --data …"));
        }
        Ok(code)
    }

    /// What is only needed at the end is looked for at the start.
    fn check_paths(&self, output: &Path) -> Result<(), Failure> {
        let from = &self.data.from;
        check_there(&[
            ("MODEL", Some(&self.model)),
            ("--calibration", self.calibration.calibration.as_deref()),
            ("--validate", self.validate.as_ref().and_then(Option::as_deref)),
            ("--data", from.data.as_deref()),
            ("--tokenizer", from.tokenizer.as_deref()),
            ("--baseline", self.measure.baseline.as_deref()),
        ])?;
        let stats = self.calibration.stats.as_deref();
        check_outputs([output].into_iter().chain(stats).chain(self.reports.files()))
    }

    /// Says what would be written.
    fn outline(
        &self,
        (output, stdin): (&Path, &Received),
        recipe: &Recipe,
        inputs: &Inputs,
        save: &SaveOptions,
        ui: &Ui,
    ) -> Result<u8, Failure> {
        let ctx = ui.ctx();
        let job = Job { recipe, inputs, ctx: &ctx };
        let open = self.keep.options(&self.input);
        let opened = Opened::read_for(&self.model, &open, recipe, &ctx)?;
        let mut outcome = pipeline::outline(opened, &job)?.predict(output, save, &job)?;
        outcome.model = stdin.shown(&self.model).into();
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
        let open = self.keep.options(&self.input);
        let model = Opened::read_for(&self.model, &open, recipe, ctx)?;
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
        ui.show(&show::outcome(outcome, validation))?;
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
