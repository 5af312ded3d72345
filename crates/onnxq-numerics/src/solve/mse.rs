//! Least squared error: gives up the ends of a block's range where that helps the rest.

use ndarray::ArrayView2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Prepared, Solver, blocks::quantize, search::fit};
use crate::{scheme::Scheme, specs::Settings};
use onnxq_ir::tensor::{QMatrix, QShape};

/// Least squared error of the weights; needs no data.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mse {}

impl Settings for Mse {}

impl Solver for Mse {
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        _: Option<&Prepared>,
    ) -> QMatrix {
        let ones = vec![1.0; shape.block.min(shape.k)];
        quantize(rows, (scheme, shape), None, |values, _| {
            fit(values, Some(&ones[..values.len()]), scheme, shape.scale)
        })
    }
}
