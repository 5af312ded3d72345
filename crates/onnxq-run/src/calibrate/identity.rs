//! What statistics belong to, and where they come from.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CalibrateError;
use onnxq_ir::onnx::Files;

/// What statistics belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 of all files of the model.
    pub model: String,
    /// SHA-256 of each data set, sorted.
    pub data: Vec<String>,
    pub samples: u64,
    /// A digest of the plan, if layers saw weights that were quantized by it; else empty.
    pub prefix: String,
    /// What says how much tokens count for guided solvers; empty if there are none.
    #[serde(default)]
    pub guide: String,
    /// Where they come from; no part of what must agree.
    #[serde(default)]
    pub origin: StatsOrigin,
}

/// What a model says of statistics that it was made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsOrigin {
    /// [`Contents`](crate::data::Contents) of the samples; empty in files of older versions.
    pub sha256: String,
    pub sketch: String,
    /// The version that ran the model, and the CPU.
    pub onnxruntime: String,
    pub cpu: String,
}

/// The digest of a model: of the contents of its files.
pub fn model_sha256(files: &Files) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files.contents() {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}

impl Identity {
    /// Whether statistics in the file at `path`, which belong to `self`, fit `wanted`.
    pub fn check(&self, wanted: &Identity, path: &Path) -> Result<(), CalibrateError> {
        let path = path.to_owned();
        if self.model != wanted.model {
            return Err(CalibrateError::OtherModel { path });
        }
        if self.data != wanted.data {
            return Err(CalibrateError::OtherData { path });
        }
        if self.samples != wanted.samples {
            let (actual, expected) = (self.samples, wanted.samples);
            return Err(CalibrateError::OtherSamples { path, actual, expected });
        }
        if self.prefix != wanted.prefix {
            return Err(CalibrateError::OtherPrefix { path });
        }
        // Without guided solvers nobody asks for what others were guided by.
        if !wanted.guide.is_empty() && self.guide != wanted.guide {
            return Err(CalibrateError::OtherGuide { path });
        }
        Ok(())
    }
}
