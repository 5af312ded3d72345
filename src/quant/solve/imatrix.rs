//! CONTRACT STUB, to be replaced.

use ndarray::ArrayView2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Prepared, Rtn, Solver};
use crate::{
    quant::scheme::Scheme,
    tensor::{QMatrix, QShape},
};

#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Imatrix {}

impl Solver for Imatrix {
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        extent: QShape,
        input: Option<&Prepared>,
    ) -> QMatrix {
        Rtn.solve(rows, scheme, extent, input)
    }
}
