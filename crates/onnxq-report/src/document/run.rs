//! What a report was made with and from.

use std::{collections::BTreeMap, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FileFacts;
use onnxq_ir::diag::Code;

/// The machine and the programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Environment {
    pub onnxq: String,
    /// The commit that it was built from, if the build said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxq_commit: Option<String>,
    pub onnxruntime: String,
    /// The library that ran.
    pub onnxruntime_path: String,
    pub onnxruntime_sha256: Option<String>,
    pub os: String,
    pub arch: String,
    pub cpu: String,
    /// Instruction sets that matter here, with whether the CPU has them.
    pub cpu_features: BTreeMap<String, bool>,
    /// Threads of each session.
    pub threads: usize,
    /// What the saturation probe says of int8 products: `exact (VNNI, proved)`.
    pub int8_sums: Option<String>,
}

/// What went in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Provenance {
    /// The program and its arguments, as they were given.
    pub command: Vec<String>,
    pub recipe: Option<RecipeFacts>,
    /// What the models were compared on.
    pub evaluation: Samples,
    /// What the candidate was calibrated on, if anything.
    pub calibration: Option<Samples>,
    /// Evaluation samples that were calibrated on.
    pub overlap: Option<Overlap>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecipeFacts {
    pub name: String,
    /// Of `yaml`.
    pub sha256: String,
    /// The recipe in full, with everything that it extends and that the command line set.
    pub yaml: Option<String>,
}

/// Data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Samples {
    /// As it was given; `None` if only the digest is known.
    pub path: Option<String>,
    pub samples: Option<usize>,
    /// Of all files that the samples come from; one file: its own.
    pub sha256: String,
    pub files: Vec<FileFacts>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overlap {
    /// Evaluation samples that could be looked up.
    pub checked: usize,
    /// Of them, those that were calibrated on.
    pub shared: usize,
}

/// Something the reader should know before trusting a figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// `W201`; `onnxq explain` knows it.
    pub code: String,
    /// The node, output or file it is about.
    pub at: Option<String>,
    pub message: String,
}

/// Codes are texts in a report: it may be of a version that has others.
impl Warning {
    pub fn new(code: Code, at: &Path, message: String) -> Warning {
        let at = Some(at.display().to_string());
        Warning { code: code.to_string(), at, message }
    }
}
