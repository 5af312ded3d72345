//! `onnxq quantize`: the main job.

use std::path::{Path, PathBuf};

use super::{
    Failure, Ui,
    outputs::OutputArgs,
    places::{Destination, check_outputs, check_there},
    shared::{
        ADVANCED, CalibrationArgs, DataArgs, InputArgs, MeasureArgs, NoData, Nonfinite, RecipeArgs,
        external_data, size,
    },
    show,
};
use onnxq_ir::{
    diag::{Code, Diagnostic, EXIT_GATE, EXIT_NOTHING},
    onnx::{ExternalData, SaveOptions},
};
use onnxq_pipeline::{
    self as pipeline, Goal, Job, Opened, Outcome, OutputFile, Quantized, Validate,
};
use onnxq_quant::recipe::Gate;
use onnxq_report::Report;
use onnxq_run::data::Dataset;

/// Quantize a model by a recipe
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model: .onnx or .onnxtxt
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    #[command(flatten)]
    pub destination: Destination,
    /// Compare the result with the original on data: that of --data, or this
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
        let output = self.destination.resolve(&mut self.validate, &self.model, &recipe.name)?;
        let output = output.as_path();
        self.check_paths(output)?;
        let gates = self.data.gates(Some(&recipe))?;
        let save =
            SaveOptions { external: self.external_data, force: self.force, ..Default::default() };
        ui.note(&format!("onnxq {} · recipe {}", env!("CARGO_PKG_VERSION"), recipe.name));
        let mut inputs = self.calibration.inputs((&self.data.from, &self.model), &recipe, ui);
        inputs.skip_nonfinite = self.nonfinite == Nonfinite::Skip;
        inputs.goal = self.goal.goal();
        inputs.allow_noop = self.allow_noop;
        let (open, ctx) = (self.input.options(), ui.ctx());
        if self.dry_run {
            let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
            let lowered = pipeline::outline(Opened::read(&self.model, &open, &ctx)?, &job)?;
            let outcome = lowered.predict(output, &save, &job)?;
            return report(ui, &outcome, None, self.allow_noop);
        }
        let data = self.validation_data()?;
        if data.is_some() && is_same_file(&self.model, output) {
            return Err(OriginalLost { path: output.into() }.into());
        }
        if data.is_some() {
            // Fetched now, it can also say what executes; if it cannot be, the comparison says so.
            let _ = ui.global.runtime(ui).ensure();
        }
        save.check_free(output)?;
        inputs.output = OutputFile { path: Some(output.to_owned()), save };
        let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
        let model = Opened::read(&self.model, &open, &ctx)?;
        let outcome = match pipeline::quantize(model, &job)? {
            Quantized::Lowered(it) => it.write(output, &save, &job)?,
            Quantized::Nothing(outcome) => *outcome,
        };
        let validation = match data.filter(|_| outcome.output.is_some()) {
            Some(data) => Some(self.validate(&outcome, output, &data, &gates, ui)?),
            None => None,
        };
        let code = match &validation {
            Some(report) if self.reports.is_asked() => {
                let human = || show::outcome(&outcome, Some(report));
                self.reports.deliver(report, human, ui)?;
                exit_code(&outcome, Some(report), self.allow_noop)
            }
            _ => report(ui, &outcome, validation.as_ref(), self.allow_noop)?,
        };
        if code == 0 && validation.is_none() {
            let (model, output) = (self.model.display(), output.display());
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

    fn validate(
        &self,
        outcome: &Outcome,
        output: &Path,
        data: &Path,
        gates: &[Gate],
        ui: &Ui,
    ) -> Result<Report, Failure> {
        let validate = Validate {
            reference: &self.model,
            candidate: output,
            data: Dataset::of_path(data, self.data.from.options(&self.model)),
            open: self.input.options(),
            gates,
            baseline: self.measure.baseline.as_deref(),
            measures: self.measure.measures(),
            threads: ui.global.session_threads(),
            memory: self.calibration.memory,
            runtime: ui.global.runtime(ui),
            command: super::command_line(),
            program: std::env::current_exe().ok(),
        };
        pipeline::validate(&validate, Some(outcome), &ui.ctx()).map_err(|error| {
            ui.note(&format!("{} was written; comparing it failed", output.display()));
            error.into()
        })
    }

    /// The data to compare on, if a comparison is wanted. Never made up: random inputs prove
    /// nothing.
    fn validation_data(&self) -> Result<Option<PathBuf>, Failure> {
        match (&self.validate, &self.data.from.data) {
            (None, _) if self.reports.is_asked() => Err(NoComparison.into()),
            (None, _) => Ok(None),
            (Some(Some(data)), _) | (Some(None), Some(data)) => Ok(Some(data.clone())),
            (Some(None), None) => Err(NoData("compare on").into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no report without a comparison")]
struct NoComparison;

impl Diagnostic for NoComparison {
    fn code(&self) -> Code {
        Code::E712
    }

    fn hint(&self) -> Option<String> {
        Some("add --validate with --data".into())
    }
}

/// Whether two paths lead to one file, which exists.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

#[derive(Debug, thiserror::Error)]
#[error("{} would replace the original, and nothing would be left to compare with", .path.display())]
struct OriginalLost {
    path: PathBuf,
}

impl Diagnostic for OriginalLost {
    fn code(&self) -> Code {
        Code::E904
    }

    fn hint(&self) -> Option<String> {
        Some("choose another output name, or leave out --validate".into())
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
