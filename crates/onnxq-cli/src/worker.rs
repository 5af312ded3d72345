//! `onnxq worker`, hidden: a process that does for another one what must be done alone.

use std::io;

use super::{Failure, Ui};
use onnxq_run::worker;

/// Read a request from standard input and answer it, both in JSON
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    pub fn run(self, _: &Ui) -> Result<u8, Failure> {
        worker::serve(io::stdin().lock(), io::stdout().lock()).map_err(Failure::Stdout)?;
        Ok(0)
    }
}
