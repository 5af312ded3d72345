//! `onnxq compare`: how two models differ, and where that begins.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Failure, Ui, layers,
    places::check_there,
    proof,
    shared::{ADVANCED, InputArgs, NoData, SampleArgs, size},
    stream::receive,
};
use onnxq_ir::{ctx::Progress, diag::Warning};
use onnxq_pipeline::{
    self as pipeline, self, Measures, Validate,
    attribution::{self, Attribute},
};
use onnxq_quant::recipe::{Gate, gate::GateError};
use onnxq_report::{
    Comparison,
    document::{Attribution, Bisection},
};
use onnxq_run::data::Dataset;

/// Explore how two models differ, and where; `validate` is for CI, this is for you
///
/// Layers are values that both models compute under the same name. Their errors are measured on
/// at most 8 samples, with both models run as they are written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The float model; `-` stands for standard input, here or as the other one
    pub original: PathBuf,
    /// The quantized model, of any tool, or any other one with the same inputs and outputs
    pub quantized: PathBuf,
    #[command(flatten)]
    pub data: SampleArgs,
    /// Rank the layers by what their error costs at the outputs, and suggest what would help
    #[arg(long)]
    pub layers: bool,
    /// Find the first node with which a limit is broken
    #[arg(long)]
    pub bisect: bool,
    /// The limit for --bisect: kl.mean<=0.05, sqnr_db>=20 [default: half of the loss]
    #[arg(long, value_name = "EXPR", requires = "bisect")]
    pub limit: Option<String>,
    /// Memory for the values of layers; with less, the models run more often
    #[arg(help_heading = ADVANCED)]
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = size)]
    pub memory: u64,
    #[command(flatten)]
    pub input: InputArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Compared {
    schema: &'static str,
    onnxq: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attribution: Option<Attribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bisection: Option<Bisection>,
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let _stdin = receive([&mut self.original, &mut self.quantized])?;
        let limit = self.limit.as_deref().map(str::parse::<Gate>);
        let limit = limit.transpose().map_err(|error: GateError| error)?;
        let Some(data) = self.data.data.clone() else { return Err(NoData("compare on").into()) };
        check_there(&[("--data", Some(&data)), ("--tokenizer", self.data.tokenizer.as_deref())])?;
        let job = Attribute {
            reference: &self.original,
            candidate: &self.quantized,
            data: Dataset::of_path(data, self.data.options(&self.original)),
            open: self.input.options(),
            memory: self.memory,
            threads: ui.global.session_threads(),
            runtime: ui.global.runtime(ui),
        };
        let mut result = Compared {
            schema: "onnxq.compare/1",
            onnxq: env!("CARGO_PKG_VERSION"),
            outputs: None,
            attribution: None,
            bisection: None,
        };
        if self.layers || self.bisect {
            attribution::tell(&job, &ui.ctx())?;
        }
        if self.layers {
            result.attribution = Some(attribution::attribute(&job, &ui.ctx())?);
        }
        if self.bisect {
            result.bisection = Some(attribution::bisect(&job, limit.as_ref(), &ui.ctx())?);
        }
        if !self.layers && !self.bisect {
            result.outputs = Some(outputs(&job, ui)?);
        }
        if ui.global.json {
            ui.print_json(&result)?
        } else {
            ui.print(&text(&result))?
        }
        Ok(0)
    }
}

fn outputs(job: &Attribute, ui: &Ui) -> Result<Comparison, Failure> {
    let job = Validate {
        open: job.open,
        measures: Measures { decode: true, ..Measures::default() },
        threads: job.threads,
        runtime: job.runtime.clone(),
        ..Validate::new(job.reference, job.candidate, job.data.clone())
    };
    let report = pipeline::validate(&job, None, &ui.ctx())?;
    for it in report.warnings {
        ui.warn(&Warning { code: it.code.parse().ok(), message: it.message });
    }
    Ok(report.figures)
}

fn text(it: &Compared) -> String {
    let mut out = String::new();
    out.extend(it.outputs.as_ref().map(proof::figures));
    out.extend(it.attribution.as_ref().map(layers::attribution));
    if it.attribution.is_some() && it.bisection.is_some() {
        out.push('\n');
    }
    out.extend(it.bisection.as_ref().map(layers::bisection));
    out
}
