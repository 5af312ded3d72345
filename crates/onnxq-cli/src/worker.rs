//! `onnxq worker`, hidden: a process that does for another one what must be done alone.

use super::{Failure, Ui};
use onnxq_run::worker;

/// Answer requests that come through standard input
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of memory that this process may have of its own
    #[arg(long, value_name = "BYTES")]
    pub limit: Option<u64>,
}

impl Args {
    pub fn run(self, _: &Ui) -> Result<u8, Failure> {
        worker::serve(self.limit).map_err(Failure::Stdout)?;
        Ok(0)
    }
}
