//! `onnxq footprint`, hidden: what `validate` runs to see what one model alone takes.

use std::path::PathBuf;

use super::{
    Failure, Ui,
    shared::{InputArgs, NoData, SampleArgs},
};
use crate::pipeline::footprint;

/// Load one model, run one sample and print the time and memory that took
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    #[command(flatten)]
    pub data: SampleArgs,
    #[command(flatten)]
    pub input: InputArgs,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let Some(data) = &self.data.data else { return Err(NoData("run the model on").into()) };
        let (options, open) = (self.data.options(), self.input.options());
        let (threads, runtime) = (ui.global.session_threads(), ui.global.runtime(ui));
        let measured = footprint::measure(&self.model, data, &options, &open, threads, &runtime)?;
        ui.print_json(&measured)?;
        Ok(0)
    }
}
