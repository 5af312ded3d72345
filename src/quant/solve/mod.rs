//! Solvers choose codes, scales and zeros for a weight. They know nothing of ONNX.

mod rtn;

use ndarray::ArrayView2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::rtn::Rtn;
use super::scheme::Scheme;
use crate::tensor::{QMatrix, QShape};

/// A solver and its settings, as a recipe names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SolverSpec {
    /// Round to nearest: no data needed, and the bytes that ONNX Runtime's own tool writes.
    #[default]
    Rtn,
}

pub trait Solver: Send + Sync {
    /// `rows` are some rows of a weight, `[n, k]`; `extent` describes the whole weight.
    /// Rows must not influence each other: the driver decides how many of them a call gets,
    /// and calls in parallel.
    fn solve(&self, rows: ArrayView2<f32>, scheme: &Scheme, extent: QShape) -> QMatrix;
}

impl SolverSpec {
    pub fn solver(&self) -> &dyn Solver {
        match self {
            SolverSpec::Rtn => &Rtn,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            SolverSpec::Rtn => "rtn",
        }
    }
}
