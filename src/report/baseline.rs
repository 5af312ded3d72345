//! A report against an older one: what got worse.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The older report, and each figure that both have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BaselineFacts {
    pub path: String,
    pub onnxq: String,
    /// Of its candidate's model file.
    pub candidate_sha256: String,
    pub rows: Vec<BaselineRow>,
}

/// One figure, then and now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BaselineRow {
    /// As a gate names it: `logits:kl.mean`.
    pub figure: String,
    pub then: Option<f64>,
    pub now: Option<f64>,
    /// The worst value that is no regression.
    pub limit: f64,
    pub better: bool,
    pub pass: bool,
}
