//! From the file as it is written to what it means, or to the value that has none.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, ConfigError, KeepAlive, Limits, ModelConfig, TokenSource,
    file::{File, ModelFile},
    units::{self, Scalar},
};
use crate::sampling;
use onnxq_ir::{human, untrusted::Untrusted};
use onnxq_quant::recipe::{Place, Position};
use onnxq_run::answer::Sampling;

/// Workers of one model.
const MOST_SLOTS: usize = 64;
/// Requests that wait for one model.
const MOST_QUEUE: usize = 4096;
const MOST_CONTEXT: usize = 1 << 24;
/// Of a name.
const MOST_LETTERS: usize = 96;

/// One value of the file: where it stands, and what it is called there.
struct At<'a> {
    place: &'a Place,
    path: String,
}

impl At<'_> {
    fn key(&self, key: &str) -> Position {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        // Names of models may have dots, which a path is divided at.
        match self.path.strip_prefix("models.") {
            Some(name) => {
                let models = self.place.inner.get("models");
                let place = models.and_then(|it| it.inner.get(name));
                place.map_or_else(|| self.place.at("models"), |it| it.at(key))
            }
            None => self.place.at(&path),
        }
    }

    fn wrong<T>(&self, key: &str, what: &str, hint: &str) -> Result<T, ConfigError> {
        let what = format!("`{key}` {what}");
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Err(ConfigError::Value { at: self.key(key), what, hint })
    }

    fn duration(&self, key: &str, text: &str) -> Result<Duration, ConfigError> {
        let hint = format!("times are written as {}", human::TIMES);
        units::duration(text).map_or_else(|| self.wrong(key, "is no time", &hint), Ok)
    }

    fn size(&self, key: &str, text: &str) -> Result<u64, ConfigError> {
        let hint = format!("sizes are written as {}", human::SIZES);
        match human::parse_bytes(text) {
            Some(size) if size > 0 => Ok(size),
            _ => self.wrong(key, "is no size", &hint),
        }
    }

    fn count(
        &self,
        key: &str,
        given: Option<usize>,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ConfigError> {
        match given {
            Some(it) if !range.contains(&it) => {
                let what = format!("must be from {} to {}", range.start(), range.end());
                self.wrong(key, &what, "")
            }
            given => Ok(given.unwrap_or(default)),
        }
    }
}

pub(super) fn config(file: &File, path: &Path) -> Result<Config, ConfigError> {
    let at = At { place: &file.place, path: String::new() };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut models = Vec::new();
    for (name, model) in &file.models {
        let at = At { place: &file.place, path: format!("models.{name}") };
        if !is_name(name) {
            let what = format!("model name `{}` is not usable", Untrusted(name));
            return Err(ConfigError::Value { at: at.key(""), what, hint: Some(NAMES.into()) });
        }
        models.push(self::model(name, model, folder, &at)?);
    }
    if models.is_empty() {
        return at.wrong("models", "is empty", "a model has a line: `NAME: {path: PATH}`");
    }
    Ok(Config {
        listen: listen(file, &at)?,
        memory: file.memory.as_ref().map(|it| at.size("memory", &it.0)).transpose()?,
        token: token(file, folder, &at)?,
        hosts: file.hosts.iter().map(|it| it.to_ascii_lowercase()).collect(),
        cors: origins(file, &at)?,
        limits: limits(file)?,
        models,
    })
}

fn listen(file: &File, at: &At) -> Result<SocketAddr, ConfigError> {
    let Some(text) = &file.listen else { return Ok(Config::LISTEN) };
    let hint = "an address and a port: 127.0.0.1:8080, 0.0.0.0:8080, [::1]:8080";
    text.parse().or_else(|_| at.wrong("listen", "is no address with a port", hint))
}

fn token(file: &File, folder: &Path, at: &At) -> Result<TokenSource, ConfigError> {
    match (&file.token_file, &file.token_env) {
        (Some(_), Some(_)) => at.wrong("token_env", "and `token_file` are both given", ""),
        (Some(path), None) => Ok(TokenSource::File(folder.join(path))),
        (None, Some(name)) => Ok(TokenSource::Variable(name.clone())),
        (None, None) => Ok(TokenSource::None),
    }
}

/// `*` would let every page on the web read answers.
fn origins(file: &File, at: &At) -> Result<Vec<String>, ConfigError> {
    for origin in &file.cors {
        let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if rest.is_none_or(|it| it.is_empty() || it.contains(['/', '*', ' '])) {
            let hint = "an origin has a scheme and a host, and no path: https://app.example.com";
            return at.wrong("cors", "has something that is no origin", hint);
        }
    }
    Ok(file.cors.clone())
}

fn limits(file: &File) -> Result<Limits, ConfigError> {
    let at = At { place: &file.place, path: "limits".into() };
    let (given, mut limits) = (&file.limits, Limits::default());
    if let Some(Scalar(text)) = &given.body {
        let size = at.size("body", text)?;
        limits.body_bytes = match usize::try_from(size) {
            Ok(size) if size <= 1 << 30 => size,
            _ => return at.wrong("body", "must be at most 1GiB", ""),
        };
        limits.all_bodies = limits.all_bodies.max(4 * limits.body_bytes);
    }
    if let Some(Scalar(text)) = &given.deadline {
        limits.deadline = at.duration("deadline", text)?;
    }
    limits.connections =
        at.count("connections", given.connections, limits.connections, 1..=65_536)?;
    Ok(limits)
}

fn model(
    name: &str,
    given: &ModelFile,
    folder: &Path,
    at: &At,
) -> Result<ModelConfig, ConfigError> {
    let path = |path: &String| folder.join(path);
    let default = ModelConfig::new(name, &path(&given.path));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let keep_alive = match &given.keep_alive {
        // Whoever loads a model at the start wants given to be there.
        None if given.preload => KeepAlive::Forever,
        None => default.keep_alive,
        Some(Scalar(text)) if text.trim().starts_with('-') => KeepAlive::Forever,
        Some(Scalar(text)) => KeepAlive::For(at.duration("keep_alive", text)?),
    };
    let deadline = match &given.deadline {
        Some(Scalar(text)) => at.duration("deadline", text)?,
        None => default.deadline,
    };
    let context = given.context.map(|_| at.count("context", given.context, 0, 1..=MOST_CONTEXT));
    Ok(ModelConfig {
        preset: given.preset,
        tokenizer: given.tokenizer.as_ref().map(path),
        labels: given.labels.as_ref().map(path),
        context: context.transpose()?,
        threads: at.count("threads", given.threads, 0, 0..=cores.max(1024))?,
        slots: at.count("slots", given.slots, default.slots, 1..=MOST_SLOTS)?,
        queue: at.count("queue", given.queue, default.queue, 0..=MOST_QUEUE)?,
        keep_alive,
        preload: given.preload,
        deadline,
        system: given.system.clone(),
        max_tokens: given.max_tokens,
        sampling: sampling(given, at)?,
        ..default
    })
}

fn sampling(given: &ModelFile, at: &At) -> Result<Sampling, ConfigError> {
    let sampling = Sampling {
        temperature: given.temperature,
        top_k: given.top_k,
        top_p: given.top_p,
        min_p: given.min_p,
        repetition_penalty: given.repetition_penalty,
        seed: given.seed,
    };
    match sampling::wrong(&sampling) {
        Some((key, what)) => at.wrong(key, what, ""),
        None => Ok(sampling),
    }
}

const NAMES: &str = "names have up to 96 letters, digits and any of `.`, `_`, `-`, `:` and `/`";

/// What stands in paths of addresses and in metrics as it is.
fn is_name(name: &str) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || "._-:/".contains(it);
    (1..=MOST_LETTERS).contains(&name.len()) && name.chars().all(plain)
}

/// `models/smol/model.onnx` is `smol`, `models/edge.int4.onnx` is `edge.int4`.
pub(super) fn name_of(path: &Path) -> Result<String, ConfigError> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let stem = if real.is_dir() { real.file_name() } else { real.file_stem() };
    let parent = real.parent().and_then(Path::file_name);
    let stem = if stem.is_some_and(|it| it == "model") { parent.or(stem) } else { stem };
    let plain = |it: char| if is_name(it.encode_utf8(&mut [0; 4])) { it } else { '-' };
    let name: String = stem.unwrap_or_default().to_string_lossy().chars().map(plain).collect();
    if is_name(&name) { Ok(name) } else { Err(ConfigError::NoName(PathBuf::from(path))) }
}

/// Orders models by name.
pub(super) fn distinct(models: &mut [ModelConfig]) -> Result<(), ConfigError> {
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let mut seen = BTreeSet::new();
    match models.iter().find(|it| !seen.insert(&it.name)) {
        Some(again) => Err(ConfigError::SameName(again.name.clone())),
        None if models.is_empty() => Err(ConfigError::NoModels),
        None => Ok(()),
    }
}
