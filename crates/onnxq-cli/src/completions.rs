//! `onnxq completions`: a script that completes our command line.

use clap_complete::{Shell, generate};

use super::{Failure, Ui, command};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete in
    pub shell: Shell,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "onnxq", &mut script);
        ui.print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
