//! Least squared error of what a weight's inputs make of it.
//!
//! The error of an output is `Σ_j x_j (w_j - ŵ_j)`. If inputs are not correlated, its mean square
//! is `Σ_j E[x_j²] (w_j - ŵ_j)²`. llama.cpp calls the `E[x_j²]` an importance matrix.

use ndarray::ArrayView2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BadStats, Prepared, Solver, blocks::quantize, search::fit};
use crate::{
    scheme::Scheme,
    specs::{Settings, Wrong, within},
    stats::{InputStats, Needs},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// Least squared error, weighted by how large each input usually is.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Imatrix {
    /// Part of the mean importance that is added to each column's own, so that columns which the
    /// calibration data hardly used still get sensible values; 0 to 1. Default: 0.01.
    pub floor: f32,
}

impl Default for Imatrix {
    fn default() -> Imatrix {
        Imatrix { floor: 0.01 }
    }
}

impl Settings for Imatrix {
    fn check(&self) -> Result<(), Wrong> {
        within("floor", self.floor, 0.0..=1.0)
    }
}

impl Solver for Imatrix {
    fn needs(&self) -> Needs {
        Needs::Diagonal
    }

    fn prepare(&self, stats: &InputStats) -> Result<Prepared, BadStats> {
        if stats.mean_square.iter().any(|it| !it.is_finite() || *it < 0.0) {
            return Err(BadStats("mean squares that are no squares"));
        }
        Ok(Prepared::of(stats))
    }

    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        input: Option<&Prepared>,
    ) -> QMatrix {
        let weights = match input {
            Some(it) => self.weights(&it.importance, shape.block),
            None => vec![1.0; shape.k],
        };
        quantize(rows, (scheme, shape), Some(&weights), |values, from| {
            let weights = &weights[from..from + values.len()];
            fit(values, Some(weights), scheme, shape.scale)
        })
    }
}

impl Imatrix {
    /// What an error costs in each column; 1 in the mean of each block of columns.
    pub(super) fn weights(&self, importance: &[f32], block: usize) -> Vec<f32> {
        let floor = self.floor;
        let block_weights = |importance: &[f32]| {
            let sum: f64 = importance.iter().map(|it| f64::from(*it)).sum();
            let mean = sum / importance.len() as f64;
            let weight = move |it: &f32| match mean > 0.0 {
                true => (f64::from(*it) / mean) as f32 * (1.0 - floor) + floor,
                false => 1.0,
            };
            importance.iter().map(weight).collect::<Vec<f32>>()
        };
        importance.chunks(block).flat_map(block_weights).collect()
    }
}
