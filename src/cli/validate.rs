//! `onnxq validate`: a quantized model against its original, on data.

use std::path::PathBuf;

use super::{
    Failure, Ui,
    quantize::NoData,
    shared::{DataArgs, InputArgs},
    show,
};
use crate::{
    codes::EXIT_GATE,
    pipeline::{self, Validate},
};

/// Compare a quantized model with its original on data; exit with 1 if a gate fails
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model
    pub original: PathBuf,
    /// The quantized model
    pub quantized: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Compare outputs only, and measure no times
    #[arg(long)]
    pub no_latency: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let gates = self.data.gates(None)?;
        let Some(data) = self.data.data.clone() else { return Err(NoData("compare on").into()) };
        let job = Validate {
            reference: &self.original,
            candidate: &self.quantized,
            data: &data,
            options: self.data.options(),
            open: self.input.options(),
            gates: &gates,
            latency: !self.no_latency,
            threads: ui.global.session_threads(),
            runtime: ui.global.runtime(ui),
        };
        let validation = pipeline::validate(&job, &ui.ctx())?;
        if ui.global.json {
            ui.print_json(&validation)?;
        } else {
            ui.print(&show::validation(&validation))?;
        }
        Ok(if validation.pass { 0 } else { EXIT_GATE })
    }
}
