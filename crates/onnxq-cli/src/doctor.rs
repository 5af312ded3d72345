//! `onnxq doctor`: whether this machine has what onnxq needs.

use std::fmt::Write;

use super::{Failure, Ui};
use onnxq_ir::{diag::EXIT_ENVIRONMENT, untrusted::escape};
use onnxq_run::engine::Doctor;

/// Say what this machine can do: CPU, ONNX Runtime, caches
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run products of integers for two seconds and say which instructions that took
    #[arg(long)]
    pub kernels: bool,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let doctor = ui.global.runtime(ui).examine(self.kernels);
        if ui.global.json {
            ui.print_json(&doctor)?;
        } else {
            ui.print(&text(&doctor))?;
        }
        Ok(if doctor.library.is_some() { 0 } else { EXIT_ENVIRONMENT })
    }
}

fn text(it: &Doctor) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(out, "{key:<14} {}", escape(value));
    };
    line("CPU", &it.cpu.model);
    line("architecture", it.cpu.arch);
    line("threads", &it.cpu.threads.to_string());
    let features: Vec<&str> = it.cpu.features.iter().filter(|it| it.1).map(|it| it.0).collect();
    line("features", &features.join(" "));
    match &it.library {
        Some(library) => {
            line("ONNX Runtime", &format!("{} ({})", library.version, library.how));
            line("library", &library.path.display().to_string());
            line("providers", &it.providers.join(" "));
        }
        None => {
            line("ONNX Runtime", "not found");
            for tried in &it.tried {
                let place = tried.path.display();
                line("  looked in", &format!("{} ({place}): {}", tried.how, tried.reason));
            }
            line("to get it", &format!("onnxq runtime install (version {})", it.installable));
        }
    }
    if let Some(probe) = &it.probe {
        let (one, four) = (probe.one_row, probe.four_rows);
        line("int8 probe", &format!("64 × 255 × 127 gives {one} and {four}; exact is 2072640"));
    }
    line("int8 kernels", &it.verdict.to_string());
    for run in &it.kernels {
        line(&run.operator, &run.verdict);
    }
    if let Some(problem) = &it.problem {
        line("problem", problem);
    }
    out
}
