//! What is served, and within which limits: a few lines of YAML for each model, checked.

mod check;
mod error;
mod file;
#[cfg(test)]
mod tests;
mod units;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::error::ConfigError;
use crate::{http, presets::Preset, registry};
use onnxq_run::answer::Sampling;

/// Everything that is known before anything listens.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Bytes that all workers together may keep in memory; `None`: most of what the machine has.
    pub memory: Option<u64>,
    pub token: TokenSource,
    /// Names under which the server may be asked, beside those of this machine.
    pub hosts: Vec<String>,
    /// Origins of pages that may read answers.
    pub cors: Vec<String>,
    pub limits: Limits,
    /// In the order of their names.
    pub models: Vec<ModelConfig>,
}

/// Where the token is that a request must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenSource {
    #[default]
    None,
    File(PathBuf),
    /// Of the environment.
    Variable(String),
}

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the body of a request.
    pub body_bytes: usize,
    /// Of all bodies together, of requests that wait or are about to be asked.
    pub all_bodies: usize,
    /// Of the line and the headers before it.
    pub header_bytes: usize,
    /// Until the headers of a request are there.
    pub header_time: Duration,
    /// Until its body is there, and between two parts of an answer that the client takes.
    pub body_time: Duration,
    /// That are open at once.
    pub connections: usize,
    /// The longest deadline that a request may ask for.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 1 << 20,
            all_bodies: 64 << 20,
            header_bytes: 16 << 10,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            connections: 1024,
            deadline: Duration::from_secs(3600),
        }
    }
}

/// One model.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// As requests name it.
    pub name: String,
    /// A file, or a folder as `onnxq import` writes it.
    pub path: PathBuf,
    pub preset: Preset,
    pub tokenizer: Option<PathBuf>,
    pub labels: Option<PathBuf>,
    /// Tokens of prompt and answer together.
    pub context: Option<usize>,
    /// Threads within an operator; 0: as many as the machine has cores, divided by the slots.
    pub threads: usize,
    /// Requests that are answered at once, each by a worker of its own.
    pub slots: usize,
    /// Requests that wait for a slot; more are refused.
    pub queue: usize,
    pub keep_alive: KeepAlive,
    /// Load at the start, not at the first request.
    pub preload: bool,
    /// Of waiting, loading and answering together, unless the request has one.
    pub deadline: Duration,
    /// Said to a chat model before the messages of a request that has no such message.
    pub system: Option<String>,
    /// Of an answer, unless the request says.
    pub max_tokens: Option<usize>,
    /// What the request does not say.
    pub sampling: Sampling,
}

/// When a model that nobody asks is unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// After so long; at once after zero.
    For(Duration),
    Forever,
}

impl ModelConfig {
    /// A model that is named and nothing else.
    pub fn new(name: &str, path: &Path) -> ModelConfig {
        ModelConfig {
            name: name.to_owned(),
            path: path.to_owned(),
            preset: Preset::Auto,
            tokenizer: None,
            labels: None,
            context: None,
            threads: 0,
            slots: 1,
            queue: 8,
            keep_alive: KeepAlive::For(Duration::from_secs(300)),
            preload: false,
            deadline: Duration::from_secs(30),
            system: None,
            max_tokens: None,
            sampling: Sampling::default(),
        }
    }
}

impl Config {
    /// The address that is listened on unless one is given.
    pub const LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

    /// Reads a file; paths in it start at its folder.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        check::config(&file::read(path)?, path)
    }

    /// These models, each under the name of its folder or file.
    pub fn of_models(paths: &[PathBuf]) -> Result<Config, ConfigError> {
        let mut models = Vec::new();
        for path in paths {
            models.push(ModelConfig::new(&check::name_of(path)?, path));
        }
        check::distinct(&mut models)?;
        Ok(Config {
            listen: Config::LISTEN,
            memory: None,
            token: TokenSource::None,
            hosts: Vec::new(),
            cors: Vec::new(),
            limits: Limits::default(),
            models,
        })
    }

    /// Bytes that all workers together may keep in memory.
    pub fn budget(&self) -> u64 {
        self.memory.unwrap_or_else(registry::budget)
    }

    /// Whether other machines need a token, and everything that is named is there. Nothing is opened.
    pub fn check(&self, token: Option<&str>) -> Result<(), ConfigError> {
        match token {
            Some(token) => http::check_token(token).map_err(ConfigError::BadToken)?,
            None if http::is_loopback(&self.listen) => {}
            None => return Err(ConfigError::NoToken(self.listen)),
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        for model in &self.models {
            let given = [Some(&model.path), model.tokenizer.as_ref(), model.labels.as_ref()];
            for path in given.into_iter().flatten() {
                if !path.exists() {
                    return Err(ConfigError::Absent {
                        model: model.name.clone(),
                        path: path.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}
