//! `onnxq report`: an old report in another format.

use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;

use super::{
    Failure, Ui, outputs,
    shared::{find, words},
    stream::{is_stream, receive},
};
use onnxq_ir::{
    diag::{Code, Diagnostic, EXIT_GATE},
    untrusted::Untrusted,
};
use onnxq_quant::recipe::{Gate, gate::GateError};
use onnxq_report::{
    Report, baseline,
    document::{read, schema},
    emit::{EMITTERS, Emitter, HTML, JSON, by_file},
    gate,
};

/// Render a report.json again, in any format, and judge it by other gates
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The report.json that `validate --report` or `--emit json=…` wrote, or `-` for standard input
    #[arg(value_name = "RESULT.json", required_unless_present = "schema")]
    pub report: Option<PathBuf>,
    /// Where to write: a file, or an existing folder (or a name with a / at its end) for all
    /// formats [default: `-`, which is stdout]
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// The format [default: what the name of the output ends in, or html]
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    pub format: Option<&'static Emitter>,
    /// Judge the report by this gate as well, and exit with 1 unless it holds: kl.mean<=0.05
    #[arg(long, value_name = "EXPR")]
    pub gate: Vec<String>,
    /// Hold the report against this older one, and exit with 1 if a figure is worse
    #[arg(long, value_name = "REPORT.json")]
    pub baseline: Option<PathBuf>,
    /// Print the JSON Schema of report.json
    #[arg(long)]
    pub schema: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("`{}` does not say in which format to write the report", Untrusted(&.0.to_string_lossy()))]
struct NoFormat(PathBuf);

impl Diagnostic for NoFormat {
    fn code(&self) -> Code {
        Code::E711
    }

    fn hint(&self) -> Option<String> {
        Some("pass --format html, or another one".into())
    }
}

impl Args {
    pub fn run(mut self, ui: &Ui) -> Result<u8, Failure> {
        let _stdin = receive(&mut self.report)?;
        self.output = self.output.filter(|path| !is_stream(path));
        let Some(path) = self.report.as_ref().filter(|_| !self.schema) else {
            ui.print(&schema())?;
            return Ok(0);
        };
        let mut report = read(path)?;
        self.judge(&mut report)?;
        match &self.output {
            Some(output) if is_folder(output) && self.format.is_none() => {
                outputs::write_folder(&report, output)?;
            }
            Some(output) if is_folder(output) => {
                let emitter = self.emitter(ui)?;
                outputs::make_folder(output)?;
                outputs::write(&report, &output.join(emitter.file), emitter)?;
            }
            Some(output) => outputs::write(&report, output, self.emitter(ui)?)?,
            None => ui.print(&(self.emitter(ui)?.emit)(&report))?,
        }
        // To render what failed before is no failure.
        let asked = !self.gate.is_empty() || self.baseline.is_some();
        Ok(if asked && !report.passes() { EXIT_GATE } else { 0 })
    }

    /// By its own gates, which it knows the results of, and by those of the command line.
    fn judge(&self, report: &mut Report) -> Result<(), Failure> {
        for text in &self.gate {
            let gate: Gate = text.parse().map_err(|error: GateError| error)?;
            gate.sensible()?;
            report.gates.push(gate::check(&gate, &report.figures));
        }
        if let Some(path) = &self.baseline {
            let facts = baseline::compare(&path.display().to_string(), &read(path)?, report)?;
            report.baseline = Some(facts);
        }
        report.judge();
        Ok(())
    }

    fn emitter(&self, ui: &Ui) -> Result<&'static Emitter, Failure> {
        match (self.format, &self.output) {
            (Some(format), _) => Ok(format),
            (None, Some(output)) => by_file(output).ok_or_else(|| NoFormat(output.clone()).into()),
            (None, None) if ui.global.json => Ok(&JSON),
            (None, None) => Ok(&HTML),
        }
    }
}

fn format() -> impl TypedValueParser<Value = &'static Emitter> {
    let rows = EMITTERS.iter().map(|it| (it.name, it.about));
    words(rows).map(|word| find(EMITTERS, |it| it.name == word))
}

fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}
