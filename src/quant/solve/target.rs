//! Weights that undo what quantized layers before have done to their inputs.
//!
//! Where the float model has `x`, a layer now gets `x̃`. The weight to aim for is that of least
//! `E|W x − W' x̃|²`: with `H = E[x̃ x̃ᵀ]` it is `W' = W + W E[(x − x̃) x̃ᵀ] (H + λ I)⁻¹`, as in
//! Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", 2025.

use faer::{
    Mat, MatMut, Par,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch},
        triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place},
    },
};
use ndarray::{Array2, ArrayView2};

use crate::quant::stats::InputStats;

/// `λ` as a part of the mean of `H`'s diagonal. Errors of earlier layers are mostly noise, and
/// what of them lies in few samples is not to be trusted.
const DAMPING: f64 = 0.1;

/// What turns weights into those to aim for.
pub struct Target {
    /// `E[(x − x̃) x̃ᵀ]`, `[k, k]`.
    drift: Array2<f32>,
    /// `L` of `H + λ I = L Lᵀ`, in the lower triangle.
    factor: Mat<f32>,
}

impl Target {
    /// `None` if nothing has moved, or nothing can be said of how.
    pub fn new(stats: &InputStats) -> Option<Target> {
        let (drift, hessian) = (stats.drift.clone()?, stats.hessian.as_ref()?);
        let k = hessian.k;
        let mean = stats.mean_square.iter().map(|it| f64::from(*it)).sum::<f64>() / k.max(1) as f64;
        let added = (mean * DAMPING) as f32;
        if !(added > 0.0 && added.is_finite()) || drift.dim() != (k, k) {
            return None;
        }
        let mut factor =
            Mat::from_fn(k, k, |i, j| hessian.get(i, j) + if i == j { added } else { 0.0 });
        // One thread: the sums of several would depend on their number.
        let scratch = cholesky_in_place_scratch::<f32>(k, Par::Seq, Default::default());
        let mut memory = MemBuffer::new(scratch);
        let stack = MemStack::new(&mut memory);
        cholesky_in_place(factor.as_mut(), Default::default(), Par::Seq, stack, Default::default())
            .ok()?;
        Some(Target { drift, factor })
    }

    /// The weights to aim for, `[n, k]`, in place of `rows`.
    pub fn of(&self, rows: ArrayView2<f32>) -> Array2<f32> {
        let (n, k) = rows.dim();
        let mut moved = rows.dot(&self.drift);
        if let Some(values) = moved.as_slice_mut() {
            // A row of `[n, k]` is a column of `[k, n]`, and H is symmetric.
            let mut columns = MatMut::from_column_major_slice_mut(values, k, n);
            let factor = self.factor.as_ref();
            solve_lower_triangular_in_place(factor, columns.as_mut(), Par::Seq);
            solve_upper_triangular_in_place(factor.transpose(), columns, Par::Seq);
        }
        moved += &rows;
        moved
    }
}
