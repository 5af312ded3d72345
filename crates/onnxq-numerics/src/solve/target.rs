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

use crate::stats::InputStats;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{drift::Drift, moments::Moments, stats::Needs};

    fn stats(float: &Array2<f32>, own: &Array2<f32>) -> InputStats {
        let mut moments = Moments::new(own.ncols(), Needs::Hessian);
        let mut drift = Drift::new(own.ncols());
        moments.add(own.view()).unwrap();
        drift.add(float.view(), own.view()).unwrap();
        InputStats { drift: drift.finish(), ..moments.finish() }
    }

    fn values(rows: usize, k: usize) -> impl Strategy<Value = Array2<f32>> {
        let values = prop::collection::vec(-1f32..1.0, rows * k);
        values.prop_map(move |it| Array2::from_shape_vec((rows, k), it).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// With `W` itself the penalty is nothing, so the optimum can only be better.
        #[test]
        fn the_target_is_nearer_to_the_float_output(
            float in values(20, 7), noise in values(20, 7), size in 0.01f32..2.0, w in values(3, 7),
        ) {
            let own = &float * 0.8 + &noise * size;
            let target = Target::new(&stats(&float, &own)).unwrap().of(w.view());
            let expected = float.dot(&w.t());
            let error = |w: &Array2<f32>| (&expected - &own.dot(&w.t())).mapv(|it| it * it).sum();
            prop_assert!(error(&target) <= error(&w) * 1.0001, "{} {}", error(&target), error(&w));
            let rows = Target::new(&stats(&float, &own)).unwrap().of(w.slice(ndarray::s![1..2, ..]));
            for (a, b) in rows.iter().zip(target.row(1)) {
                prop_assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }

    #[test]
    fn inputs_that_shrank_get_larger_weights() {
        let float = Array2::from_shape_fn((64, 4), |(i, j)| if i % 4 == j { 1.0 } else { 0.0 });
        let target = Target::new(&stats(&float, &(&float * 0.5))).unwrap();
        let w = Array2::from_shape_fn((2, 4), |(i, j)| (i * 4 + j) as f32);
        // 1 / 0.5, held back by the damping: 1 + 1 / 1.1.
        let expected = &w * (1.0 + 1.0 / 1.1);
        for (a, b) in target.of(w.view()).iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn nothing_moved_means_no_target() {
        let float = Array2::from_elem((3, 2), 1.5);
        assert!(Target::new(&stats(&float, &float)).is_none());
        let none = Array2::zeros((3, 2));
        assert!(Target::new(&stats(&none, &none)).is_none());
        assert!(Target::new(&stats(&float, &none)).is_none());
    }
}
