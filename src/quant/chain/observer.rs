//! Who decides which values the codes of an activation must span.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the range of an activation is found from what was seen in calibration.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObserverSpec {
    /// All values seen.
    #[default]
    MinMax,
    /// The average range of the samples.
    Average,
    /// All but the outermost few.
    Percentile,
    /// The least loss of information.
    Entropy,
    /// The least squared error.
    Mse,
}
