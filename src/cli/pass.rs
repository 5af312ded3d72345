//! `onnxq pass`: named passes and rules, one after the other.

use std::path::PathBuf;

use super::quantize::InputArgs;

/// Run named passes or rules on a model
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passes and rules to run, in order, and last the model: .onnx or .onnxtxt
    #[arg(value_name = "NAME... MODEL", required = true, num_args = 2..)]
    pub names_and_model: Vec<String>,
    /// Say of each rule where it fired and why it did not
    #[arg(long)]
    pub trace: bool,
    /// Stop after this many rewrites, to find the one that breaks a model
    #[arg(long, value_name = "N")]
    pub max_rewrites: Option<usize>,
    /// Where to write the result [default: its text to stdout]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    /// The names, and the model after them.
    pub fn split(&self) -> (&[String], PathBuf) {
        match self.names_and_model.split_last() {
            Some((model, names)) => (names, PathBuf::from(model)),
            None => (&[], PathBuf::new()),
        }
    }
}
