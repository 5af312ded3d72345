//! Where the error enters: values that both models compute, in the order of execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spread::Spread;
use crate::figures::Interval;

/// Errors of inner values, on a few samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Attribution {
    pub samples: usize,
    /// All samples of the data, of which these are the first; 0 if it is not known.
    #[serde(default)]
    pub data_samples: usize,
    /// What `loss` means below: `kl` (mean, in nats) or `noise_to_signal` (power ratio).
    pub measure: String,
    /// Of the candidate as it is.
    pub loss: f64,
    /// In the order of execution.
    pub layers: Vec<LayerError>,
    /// The largest gain first.
    pub suggestions: Vec<Suggestion>,
    /// What to add to the command that made the candidate, to do all that is suggested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Values that only one of the models computes and that therefore have no row.
    pub unmatched: usize,
}

/// One value that both models compute under the same name, and the nodes of the candidate
/// between it and the matched values before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LayerError {
    /// The candidate's node.
    pub node: String,
    pub op: String,
    pub value: String,
    /// A weight or an activation is quantized between this value and the matched ones before it.
    pub quantized: bool,
    /// Signal to noise, if the nodes read what the reference computes; `null` if exact.
    pub local_sqnr_db: Option<f64>,
    /// Signal to noise in the candidate; `null` if exact.
    pub accumulated_sqnr_db: Option<f64>,
    /// The loss at the outputs if this value alone were the reference's computation, on the
    /// candidate's own inputs; `null` if it was not measured.
    pub loss_without: Option<f64>,
    /// Place among all: 1 is what hurts most.
    pub rank: usize,
    /// Places in `layers`, counted from 0, of the values that this one is computed from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<usize>,
    /// The least and the largest number of this value in the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_range: Option<Interval>,
    /// The same in the candidate as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_range: Option<Interval>,
    /// Of the weight, on its quantized grid; only of the layers that hurt most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_spread: Option<Spread>,
    /// Of the activation that meets that weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_spread: Option<Spread>,
}

/// What would help, and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Suggestion {
    pub node: String,
    /// `8 bits`, `float`, or `a range per row` for its activation.
    pub keep_in: String,
    /// Bytes that the model would grow by.
    pub bytes: i64,
    pub loss_before: f64,
    pub loss_after: f64,
    /// In one line, as people read it.
    pub text: String,
    /// Patterns that match the nodes of the reference, for `names` of a recipe.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// What to add to the command that made the candidate, quoted for a shell; `null` if that is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
}

/// The first node with which a limit is broken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Bisection {
    /// The limit as a gate.
    pub limit: String,
    /// `None` if the whole candidate keeps the limit.
    pub node: Option<String>,
    pub op: Option<String>,
    pub value: Option<String>,
    /// Measured with the candidate's nodes up to just before that one, and the reference's after.
    pub before: Option<f64>,
    /// Measured with that node too.
    pub after: Option<f64>,
    /// Models that were run.
    pub runs: usize,
    /// Samples that they were run on.
    #[serde(default)]
    pub samples: usize,
    /// All samples of the data, of which these are the first.
    #[serde(default)]
    pub data_samples: usize,
    pub probes: Vec<Probe>,
}

/// One run of a bisection: the candidate up to a value, the reference from there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Values of the candidate, in the order of execution.
    pub up_to: usize,
    pub value: Option<String>,
    pub measured: Option<f64>,
    pub keeps: bool,
}
