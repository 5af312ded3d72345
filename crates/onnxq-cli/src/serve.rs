//! `onnxq serve`: models behind an HTTP interface that clients of OpenAI's know.

use std::{
    env, fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{Failure, Ui, environment, places::check_there, shared};
use onnxq_ir::human;
use onnxq_run::worker::Library;
use onnxq_serve::{Config, ConfigError, Log, Options, TokenSource, Workers};

/// Answer requests over HTTP: chat, completions, embeddings, classification
///
/// Understands the requests of OpenAI's clients (/v1/chat/completions, /v1/completions,
/// /v1/embeddings, /v1/models), and has /v1/classify, /v1/ps, /health, /metrics and a page to try
/// the models. A model is loaded when it is asked for, in a process of its own, and unloaded when
/// nobody asks for five minutes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Models to serve: files, or folders as `onnxq import` writes them. Each is called like its folder
    /// or file
    #[arg(value_name = "MODEL", required_unless_present = "config", conflicts_with = "config")]
    pub models: Vec<PathBuf>,
    /// What to serve, in YAML: a few lines for each model
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8080]; other addresses than those of this machine need a
    /// token
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// A file with the token that every request must have
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Memory that all models together may have [default: 80 % of what the machine has]
    #[arg(long, value_name = "SIZE", value_parser = shared::size)]
    pub memory: Option<u64>,
    /// Say whether everything that is named is there and means something, and serve nothing
    #[arg(long)]
    pub check: bool,
}

impl Args {
    pub fn run(self, ui: &Ui) -> Result<u8, Failure> {
        let mut config = self.config()?;
        for model in config.models.iter_mut().filter(|it| it.threads == 0) {
            model.threads = ui.global.threads.map_or(0, usize::from);
        }
        let token = token(&config.token)?;
        config.check(token.as_deref())?;
        if self.check {
            ui.show(&format!("{}: ok\n", count(&config)))?;
            return Ok(0);
        }
        if ui.global.in_process {
            let without = "models that are served have processes of their own";
            return Err(shared::NoEffect { asked: "--in-process", without }.into());
        }
        let library = ui.global.runtime(ui).ensure()?;
        let backend = Workers {
            program: environment::program().ok_or_else(no_program)?,
            library: Library { path: library.path, custom_ops: ui.global.custom_ops.clone() },
            memory: ui.global.run_memory.or(Some(config.budget())),
            patience: ui.global.run_timeout,
        };
        let options = Options { token, state_file: environment::serve_state(), log: log(ui) };
        let (what, budget) = (count(&config), human::bytes(config.budget()));
        onnxq_serve::serve(config, Box::new(backend), options, |address| {
            // Who does not read it may ask all the same.
            let _ = match ui.global.json {
                true => ui.print_json(&json!({"listening": address.to_string()})),
                false => {
                    let url = format!("http://{address}");
                    ui.show(&format!("listening on {url} ({what}, at most {budget} of memory)\n"))
                }
            };
        })?;
        Ok(0)
    }

    fn config(&self) -> Result<Config, Failure> {
        check_there(&[("--config", self.config.as_deref())])?;
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::of_models(&self.models)?,
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(path) = &self.token_file {
            config.token = TokenSource::File(path.clone());
        }
        config.memory = self.memory.or(config.memory);
        Ok(config)
    }
}

fn count(config: &Config) -> String {
    let count = config.models.len();
    format!("{count} model{}", if count == 1 { "" } else { "s" })
}

/// The token, without the line break behind it.
fn token(source: &TokenSource) -> Result<Option<String>, ConfigError> {
    let text = match source {
        TokenSource::None => return Ok(None),
        TokenSource::File(path) => read(path)?,
        TokenSource::Variable(name) => env::var(name)
            .map_err(|_| ConfigError::BadToken(format!("the variable {name} is not set")))?,
    };
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

fn no_program() -> ConfigError {
    let what = "the system does not say which program this is";
    ConfigError::Read { path: PathBuf::from("onnxq"), source: io::Error::other(what) }
}

/// Lines on standard error, which nobody may read.
fn log(ui: &Ui) -> Log {
    let write = |line: &str| drop(writeln!(io::stderr(), "{line}"));
    if ui.global.quiet { Log::warnings(write) } else { Log::new(write) }
}
