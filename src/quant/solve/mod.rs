//! Solvers choose codes, scales and zeros for a weight. They know nothing of ONNX.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A solver and its settings, as a recipe names it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SolverSpec {
    /// Round to nearest.
    #[default]
    Rtn,
}
