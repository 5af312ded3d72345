//! `onnxq validate`: a quantized model against its original, on data.

use std::path::PathBuf;

use super::{
    Failure, Ui, environment,
    outputs::OutputArgs,
    places::{check_outputs, check_there},
    proof,
    shared::{ADVANCED, DataArgs, InputArgs, MeasureArgs, NoData, size},
    stream::receive,
};
use onnxq_ir::diag::EXIT_GATE;
use onnxq_pipeline::{self as pipeline, Validate};
use onnxq_run::data::Dataset;

/// Compare a quantized model with its original on data; exit with 1 if a gate fails
///
/// Made for pipelines: gates, a baseline, reports. To explore two models, see `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model; `-` stands for standard input, here or as the other one
    pub original: PathBuf,
    /// The quantized model
    pub quantized: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Memory for inner values, where --layers looks for the error
    #[arg(help_heading = ADVANCED)]
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = size)]
    pub memory: u64,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let stdin = receive([&mut self.original, &mut self.quantized])?;
        let gates = self.data.gates(None)?;
        let Some(data) = self.data.from.data.clone() else {
            return Err(NoData("compare on").into());
        };
        check_there(&[
            ("--data", Some(&data)),
            ("--tokenizer", self.data.from.tokenizer.as_deref()),
            ("--baseline", self.measure.baseline.as_deref()),
        ])?;
        check_outputs(self.output.files())?;
        let job = Validate {
            reference: &self.original,
            candidate: &self.quantized,
            reference_as: Some(stdin.shown(&self.original)),
            candidate_as: Some(stdin.shown(&self.quantized)),
            data: Dataset::of_path(data, self.data.from.options(&self.original)),
            open: self.input.options(),
            gates: &gates,
            baseline: self.measure.baseline.as_deref(),
            measures: self.measure.measures(),
            threads: ui.global.session_threads(),
            memory: self.memory,
            runtime: ui.global.runtime(ui),
            command: super::command_line(),
            program: environment::program(),
        };
        let report = pipeline::validate(&job, None, &ui.ctx())?;
        self.output.deliver(&report, || proof::report(&report), ui)?;
        Ok(if report.passes() { 0 } else { EXIT_GATE })
    }
}
