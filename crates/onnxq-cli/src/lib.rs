//! The command line: one file per subcommand, one exit code per kind of failure.

mod calibrate;
pub mod check;
pub mod compare;
pub mod completions;
pub mod convert;
mod decisions;
pub mod distil;
pub mod doctor;
pub mod environment;
mod examples;
pub mod explain;
pub mod failure;
pub mod import;
pub mod inspect;
mod layers;
pub mod lint;
pub mod outputs;
pub mod package;
pub mod pass;
pub mod places;
pub mod plan;
mod proof;
pub mod quantize;
mod ranges;
pub mod recipe;
pub mod report;
pub mod run;
pub mod runtime;
#[cfg(feature = "serve")]
pub mod serve;
pub mod shared;
pub mod show;
mod slips;
mod stream;
pub mod table;
mod term;
mod topics;
pub mod ui;
mod usage;
pub mod validate;
mod worker;

use std::{env, ffi::OsString, panic, path::PathBuf, process::ExitCode, time::Duration};

use clap::{
    ArgAction, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::FalseyValueParser,
};

pub use self::{failure::Failure, table::Table, ui::Ui};
use onnxq_ir::diag::EXIT_BUG;

/// Makes ONNX models 4 to 7 times smaller and faster on CPUs, and proves that they still answer the
/// same.
#[derive(Debug, Parser)]
#[command(name = "onnxq", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Each long flag can also be set by an environment variable: --ort-lib is ONNXQ_ORT_LIB.

Exit codes: 0 done · 1 a gate failed · 2 usage or recipe · 3 input rejected
4 valid but unsupported · 5 environment · 6 nothing to do · 70 a bug of onnxq";

/// One line for each subcommand, whose module has its name in lower case.
macro_rules! commands {
    ($($(#[cfg($cfg:meta)])? $(#[command($($flag:tt)*)])? $Name:ident($module:ident),)*) => {
        #[derive(Debug, Subcommand)]
        #[allow(clippy::large_enum_variant, reason = "a program has one")]
        pub enum Command {
            $($(#[cfg($cfg)])? $(#[command($($flag)*)])? $Name($module::Args),)*
        }

        impl Command {
            fn run(self, ui: &Ui) -> Result<u8, Failure> {
                for library in &ui.global.custom_ops {
                    places::check_there(&[("--custom-ops", Some(library))])?;
                }
                match self {
                    $($(#[cfg($cfg)])? Command::$Name(args) => args.run(ui),)*
                }
            }
        }
    };
}

commands! {
    Calibrate(calibrate),
    Check(check),
    Compare(compare),
    Completions(completions),
    Convert(convert),
    Distil(distil),
    Doctor(doctor),
    Explain(explain),
    Import(import),
    Inspect(inspect),
    Package(package),
    Pass(pass),
    Plan(plan),
    Quantize(quantize),
    Recipe(recipe),
    Report(report),
    Run(run),
    Runtime(runtime),
    #[cfg(feature = "serve")]
    Serve(serve),
    Validate(validate),
    #[command(hide = true)]
    Worker(worker),
}

/// Flags that every subcommand takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print warnings, errors and the last line of the result only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print what is done in more detail; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Print the result, and an error, as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Never use the network, not even to install ONNX Runtime
    #[arg(long, global = true)]
    pub offline: bool,
    /// The ONNX Runtime library to load; also ORT_DYLIB_PATH
    #[arg(long, global = true, value_name = "FILE")]
    pub ort_lib: Option<PathBuf>,
    /// A library whose custom operators ONNX Runtime shall know; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub custom_ops: Vec<PathBuf>,
    /// Run models in onnxq's own process: a model that crashes ONNX Runtime ends onnxq too
    #[arg(long, global = true)]
    pub in_process: bool,
    /// How long a model may take to load, and for each run
    #[arg(long, global = true, value_name = "TIME", default_value = "10m", value_parser = shared::time, conflicts_with = "in_process")]
    pub run_timeout: Duration,
    /// Memory that a process which runs a model may have of its own [default: nine tenths of what is free]
    #[arg(long, global = true, value_name = "SIZE", value_parser = shared::size, conflicts_with = "in_process")]
    pub run_memory: Option<u64>,
    /// Threads for the work of onnxq [default: one per core], and of each session of ONNX Runtime
    /// that is measured [default: 1]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Color {
    Always,
    // On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    Never,
}

/// The whole program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    let cli = match parse(args.clone()) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage::print(&error, &args)),
    };
    start_log(&cli.global);
    start_threads(&cli.global);
    let ui = Ui::new(cli.global);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| cli.command.run(&ui)));
    ui.finish();
    match result {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => ExitCode::from(ui.fail(&failure)),
        Err(_) => {
            ui.bug();
            ExitCode::from(EXIT_BUG)
        }
    }
}

/// The program's name and its arguments, for reports.
fn command_line() -> Vec<String> {
    let arguments = env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned());
    std::iter::once("onnxq".to_owned()).chain(arguments).collect()
}

/// The command line with everything that derive does not say.
pub fn command() -> clap::Command {
    with_environment(Cli::command()).mut_subcommands(|command| {
        match examples::of(command.get_name()) {
            Some(lines) => command.after_help(lines),
            None => command,
        }
    })
}

fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let matches = command().color(help_color(&args)).try_get_matches_from(args);
    let matches = matches.map_err(|error| slips::answered(error, &words))?;
    Cli::from_arg_matches(&matches)
}

/// Gives each long flag its variable: a script can set what it would repeat.
fn with_environment(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let Some(long) = arg.get_long() else { return arg };
        let name = format!("ONNXQ_{}", long.replace('-', "_").to_uppercase());
        let arg = match arg.get_action() {
            // So that ONNXQ_OFFLINE=0 is off.
            ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
            _ => arg,
        };
        // Parsed once in the life of the program, which clap wants to live as long.
        arg.env(&*name.leak()).hide_env(true)
    });
    command.mut_subcommands(with_environment)
}

/// clap prints help before it knows our flags.
fn help_color(args: &[OsString]) -> ColorChoice {
    let args: Vec<_> = args.iter().filter_map(|it| it.to_str()).collect();
    let is = |when: &str| {
        args.contains(&format!("--color={when}").as_str())
            || args.windows(2).any(|it| it == ["--color", when])
    };
    match () {
        () if is("never") => ColorChoice::Never,
        () if is("always") => ColorChoice::Always,
        () => ColorChoice::Auto,
    }
}

fn start_log(global: &Global) {
    let level = match global.verbose {
        // What ONNX Runtime logs of a failed run is in our own message, if that ends the command.
        0 => "error,ort=off",
        1 => "onnxq=info,warn",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ONNXQ_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ui::use_color(global.color))
        .init();
}

fn start_threads(global: &Global) {
    // Not left to the library, which would believe any number in the environment.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = global.threads.map_or(cores, usize::from);
    // Fails only if the pool exists already, which a program that has just begun cannot have.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_is_documented() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{}: {}", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
