//! The file as it is written: every key that it may have.

use std::{collections::BTreeMap, io::Read, path::Path};

use serde::Deserialize;

use super::{ConfigError, units::Scalar};
use crate::presets::Preset;
use onnxq_quant::recipe::{MAX_BYTES, Place, parse_yaml};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub listen: Option<String>,
    pub memory: Option<Scalar>,
    pub token_file: Option<String>,
    pub token_env: Option<String>,
    #[serde(default)]
    pub hosts: Vec<String>,
    #[serde(default)]
    pub cors: Vec<String>,
    #[serde(default)]
    pub limits: LimitsFile,
    pub models: BTreeMap<String, ModelFile>,
    #[serde(skip)]
    pub place: Place,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsFile {
    pub body: Option<Scalar>,
    pub connections: Option<usize>,
    pub deadline: Option<Scalar>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub path: String,
    #[serde(default)]
    pub preset: Preset,
    pub tokenizer: Option<String>,
    pub labels: Option<String>,
    pub context: Option<usize>,
    pub threads: Option<usize>,
    pub slots: Option<usize>,
    pub queue: Option<usize>,
    pub keep_alive: Option<Scalar>,
    #[serde(default)]
    pub preload: bool,
    pub deadline: Option<Scalar>,
    pub system: Option<String>,
    pub max_tokens: Option<usize>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<u64>,
}

pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        let what = format!("it is larger than {MAX_BYTES} bytes");
        return Err(failed(std::io::Error::new(std::io::ErrorKind::FileTooLarge, what)));
    }
    parse(&text, &path.display().to_string())
}

pub(super) fn parse(text: &str, name: &str) -> Result<File, ConfigError> {
    let (mut file, place): (File, Place) = parse_yaml(text, name).map_err(ConfigError::Yaml)?;
    file.place = place;
    Ok(file)
}
