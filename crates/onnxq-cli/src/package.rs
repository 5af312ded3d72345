//! `onnxq package`: a folder with a model whose weights processes share.

use std::{fmt::Write, path::PathBuf};

use super::{
    Failure, Table, Ui,
    places::check_there,
    shared::{InputArgs, SampleArgs, preprocess_help},
};
use onnxq_ir::human::bytes;
use onnxq_pipeline::package::{Checked, Package, Packaged, Packing, check, package, remake};
use onnxq_run::data::{DataOptions, Dataset};

/// Put a model and its weights as this machine's kernels pack them into a folder, so that processes
/// share them
///
/// ONNX Runtime packs weights for its kernels when it loads a model, and each process has a copy of its
/// own. A package holds the packed weights in a file that processes map: several of one model have them
/// in memory once, and loading takes less time. The file is about twice as large. The plain model lies
/// beside and is what is loaded wherever the packed one does not fit: with another ONNX Runtime, on
/// another kind of CPU, or if a file changed. The packed model is compared with the plain one, bit for
/// bit, before there is a package.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model, or a folder with models as `onnxq import` and optimum write it; with --check or
    /// --remake, a package
    pub model: PathBuf,
    /// The folder to make
    #[arg(
        short, long, value_name = "FOLDER", required_unless_present_any = ["check", "remake"],
        conflicts_with_all = ["check", "remake"]
    )]
    pub output: Option<PathBuf>,
    /// Read every byte of a package, and say whether it is what it was and fits this machine
    #[arg(long, conflicts_with_all = ["remake", "data"])]
    pub check: bool,
    /// Pack the models of a package again, for this ONNX Runtime and this CPU
    #[arg(long)]
    pub remake: bool,
    /// Compare on the first samples of this, as `validate` takes it [default: inputs that are made up]
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// The tokenizer.json for text [default: that of the model, if it is a folder]
    #[arg(long, value_name = "FILE", requires = "data")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, value_name = "NAME|FILE", help = preprocess_help(), requires = "data")]
    pub preprocess: Option<String>,
    /// Replace the folder if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

/// Samples that are compared.
const SAMPLES: usize = 4;

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        check_there(&[
            ("MODEL", Some(&self.model)),
            ("--data", self.data.as_deref()),
            ("--tokenizer", self.tokenizer.as_deref()),
        ])?;
        if self.check {
            return self.check(ui);
        }
        let how = self.packing(ui);
        let packaged = match &self.output {
            Some(output) => {
                let job = Package { model: &self.model, output, how, force: self.force };
                package(&job, &ui.ctx())?
            }
            None => remake(&self.model, &how, &ui.ctx())?,
        };
        match ui.global.json {
            true => ui.print_json(&packaged)?,
            false => ui.print(&show(&packaged))?,
        }
        Ok(0)
    }

    fn check(&self, ui: &Ui) -> Result<u8, Failure> {
        let checked = check(&self.model, &ui.global.runtime(ui))?;
        match ui.global.json {
            true => ui.print_json(&checked)?,
            false => ui.print(&found(&checked))?,
        }
        checked.judge()?;
        Ok(0)
    }

    fn packing<'a>(&self, ui: &'a Ui) -> Packing<'a> {
        let from = SampleArgs {
            data: None,
            tokenizer: self.tokenizer.clone(),
            preprocess: self.preprocess.clone(),
            samples: Some(SAMPLES),
        };
        let options = DataOptions { batch: 1, ..from.options(&self.model) };
        Packing {
            runtime: ui.global.runtime(ui),
            open: self.input.options(),
            data: self.data.clone().map(|it| Dataset::of_path(it, options)),
            threads: ui.global.threads.map_or(1, usize::from),
        }
    }
}

fn show(packaged: &Packaged) -> String {
    let header = ["model", "plain", "packed form", "packed", "mapped", "copied", "same on"];
    let mut table = Table::new(header).right(&[1, 2, 3, 4, 5]);
    for it in &packaged.models {
        let [plain, prepacked, packed, mapped, copied] = [
            it.plain_bytes,
            it.prepacked_bytes,
            it.weights.packed_bytes,
            it.weights.mapped_bytes,
            it.weights.copied_bytes,
        ]
        .map(bytes);
        table.row([&it.file, &plain, &prepacked, &packed, &mapped, &copied, &it.compared]);
    }
    let mut out = table.to_string();
    out += "\nProcesses share what is packed for its kernel or mapped as it is. Of their own they have what \
            is copied (weights below 1 KiB), the graph, and what a run computes.\n";
    let _ = writeln!(
        out,
        "\nok  {}: packed by ONNX Runtime {} for {}",
        packaged.output.display(),
        packaged.onnxruntime,
        packaged.machine.cpu
    );
    out
}

fn found(checked: &Checked) -> String {
    let mut table = Table::new(["file", "size", "is"]).right(&[1]);
    for it in &checked.files {
        let state = it.changed.as_deref().unwrap_or("as it was");
        table.row([&it.path, &bytes(it.bytes), state]);
    }
    let mut out = table.to_string();
    for reason in &checked.not_used {
        let _ = writeln!(out, "\nThe packed form is not used here, because {reason}.");
    }
    if checked.not_used.is_empty() {
        out += "\nok  the packed form is used here\n";
    }
    out
}
