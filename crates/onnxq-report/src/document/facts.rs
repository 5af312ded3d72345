//! What the two models are.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Models {
    pub reference: ModelFacts,
    pub candidate: ModelFacts,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelFacts {
    /// As it was given.
    pub path: String,
    /// The model file, then those with its weights.
    pub files: Vec<FileFacts>,
    /// Of all files together.
    pub bytes: u64,
    pub opset: i64,
    pub nodes: usize,
    /// How often each operator occurs, subgraphs included.
    pub ops: BTreeMap<String, usize>,
    /// What the bytes of the weights hold, the largest first.
    pub weights: Vec<WeightKind>,
    /// Bits per weight of two and more dimensions, with the scales and zero points of quantized ones.
    pub bits_per_weight: Option<f64>,
    /// The entries of `metadata_props` that onnxq wrote: `onnxq.recipe`, ….
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileFacts {
    /// The file's name, without folders.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Weights of one element type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WeightKind {
    /// `float`, `int8`, `int4`, `scales and zero points`, `other`.
    pub kind: String,
    pub tensors: usize,
    pub bytes: u64,
}

/// A node of the candidate that has a weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrecisionRow {
    pub node: String,
    pub op: String,
    /// `float`, `float16`, `int8`, `int4`, `int2`: what its weight is stored in.
    pub precision: String,
    /// Of its weight, scales and zero points.
    pub bytes: u64,
    /// As the file declares it: `dynamic int8`, `int4 in blocks of 128`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// The kernel that ONNX Runtime runs; `None` if it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executed: Option<String>,
    /// What it computes in: `float`, `float16`, `int8`; `int4` and `int2` for kernels that read so
    /// few bits. As ONNX Runtime runs it, or else as the file declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computes: Option<String>,
    /// Why that is not what was declared, or slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
}

/// Nodes that stay in float for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    pub reason: String,
    pub op: String,
    pub nodes: Vec<String>,
    /// Nodes that are not named, because there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: usize,
    /// Of their weights.
    pub bytes: u64,
}

impl Kept {
    pub fn count(&self) -> usize {
        self.nodes.len() + self.others
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
