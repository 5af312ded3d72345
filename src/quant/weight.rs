//! A float weight that yields quantized rows when its bytes are needed.

use std::ops::Range;

use ndarray::ArrayView2;

use super::{scheme::Scheme, solve::SolverSpec};
use crate::tensor::{DType, QMatrix, QShape, QSource, Tensor, TensorError, first_non_finite};

pub(super) struct FloatWeight {
    pub name: String,
    /// `[n, k]`.
    pub rows: Tensor,
    /// Whether the rows are the columns of the weight in the model.
    pub transposed: bool,
    pub scheme: Scheme,
    pub solver: SolverSpec,
    /// Element type of the stored scales.
    pub scale: DType,
}

impl QSource for FloatWeight {
    fn shape(&self) -> QShape {
        self.scheme.extent(self.rows.shape[0], self.rows.shape[1], self.scale)
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let k = self.rows.shape[1];
        let values = self.rows.rows_f32(rows.clone())?;
        if let Some((at, what)) = first_non_finite(&values) {
            let (row, column) = match (rows.start + at / k, at % k) {
                (row, column) if self.transposed => (column, row),
                place => place,
            };
            return Err(TensorError::NonFinite { name: self.name.clone(), what, row, column });
        }
        let view = ArrayView2::from_shape((rows.len(), k), &values).expect("rows of k values");
        Ok(self.solver.solver().solve(view, &self.scheme, self.shape(), None))
    }
}
