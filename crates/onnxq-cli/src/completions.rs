//! `onnxq completions`: a script that completes our command line.

use clap::{Command, builder::PossibleValuesParser};
use clap_complete::{Shell, generate};

use super::{Failure, Ui, command};
use onnxq_quant::recipe::{AUTO, SHIPPED};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete in
    pub shell: Shell,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut with_recipes(command()), "onnxq", &mut script);
        ui.print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}

/// Where a recipe is named, the shipped ones are offered; files are completed as ever elsewhere.
fn with_recipes(command: Command) -> Command {
    let names = || PossibleValuesParser::new(SHIPPED.iter().map(|it| it.0).chain([AUTO]));
    let command = command.mut_args(|arg| match arg.get_id().as_str() {
        "recipe" => arg.value_parser(names()),
        _ => arg,
    });
    command.mut_subcommands(with_recipes)
}
