//! How far quantized layers have moved the inputs of those after them.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul, s};

use super::{
    exact_sum::{BIN, exponent, quantum, rounder},
    solve::BadStats,
};

/// Rows of the products that are computed at a time.
const PANEL: usize = 256;

/// Sums of `(x − x̃) x̃ᵀ`: `x` as the float model has it, `x̃` as the layers quantized so far make
/// it. As with [`super::moments::Moments`], no order of samples changes a bit.
#[derive(Clone, Debug)]
pub struct Drift {
    k: usize,
    rows: u64,
    bins: BTreeMap<i32, Vec<f64>>,
}

impl Drift {
    pub fn new(k: usize) -> Drift {
        Drift { k, rows: 0, bins: BTreeMap::new() }
    }

    /// Bytes that the sums, with two accumulators, and what is made of them may take.
    pub fn bytes(k: usize) -> usize {
        k * k * (2 * size_of::<f64>() + size_of::<f32>()) + PANEL.min(k) * k * size_of::<f32>()
    }

    /// Adds a sample: `float` and `own`, `[rows, k]`, hold the same tokens.
    pub fn add(&mut self, float: ArrayView2<f32>, own: ArrayView2<f32>) -> Result<(), BadStats> {
        if float.dim() != own.dim() || own.ncols() != self.k {
            return Err(BadStats("rows of another length"));
        }
        let moved = &float - &own;
        // No product of columns exceeds these; a little room for rounding in f32.
        let largest = (largest(moved.view()) * largest(own)).sqrt() * 1.001;
        if !largest.is_finite() || largest > f64::from(f32::MAX) {
            return Err(BadStats("values whose squares are no floats"));
        }
        self.rows += own.nrows() as u64;
        if largest <= f64::from(f32::MIN_POSITIVE) {
            return Ok(());
        }
        let k = self.k;
        let bin = exponent(largest).div_euclid(BIN);
        let sums = self.bins.entry(bin).or_insert_with(|| vec![0.0; k * k]);
        let round = rounder(quantum(bin));
        let mut scratch = Array2::<f32>::zeros((PANEL.min(k), k));
        for (start, sums) in (0..k).step_by(PANEL).zip(sums.chunks_mut(PANEL * k)) {
            let end = (start + PANEL).min(k);
            let mut products = scratch.slice_mut(s![..end - start, ..]);
            let left = moved.slice(s![.., start..end]);
            general_mat_mul(1.0, &left.t(), &own, 0.0, &mut products);
            let products = products.as_slice().expect("whole rows");
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum += (f64::from(*product) + round) - round;
            }
        }
        Ok(())
    }

    /// `E[(x − x̃) x̃ᵀ]`, `[k, k]`; `None` if nothing moved.
    pub fn finish(self) -> Option<Array2<f32>> {
        let scale = 1.0 / self.rows.max(1) as f64;
        let mut bins = self.bins.into_values();
        let mut sums = bins.next()?;
        bins.for_each(|it| sums.iter_mut().zip(it).for_each(|(a, b)| *a += b));
        let mean = sums.into_iter().map(|it| (it * scale) as f32).collect();
        Some(Array2::from_shape_vec((self.k, self.k), mean).expect("k rows of k"))
    }
}

/// The largest sum of squares of a column.
fn largest(x: ArrayView2<f32>) -> f64 {
    let mut squares = vec![0f64; x.ncols()];
    for row in x.outer_iter() {
        row.iter().zip(&mut squares).for_each(|(x, sum)| *sum += f64::from(*x) * f64::from(*x));
    }
    squares.into_iter().fold(0.0, |a, b| if b <= a || a.is_nan() { a } else { b })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Samples of very different size: `(x, x̃)`, each `[rows, 5]`.
    fn samples() -> impl Strategy<Value = Vec<[Array2<f32>; 2]>> {
        let sample = (1usize..5, -20i32..20).prop_flat_map(|(rows, size)| {
            let values = prop::collection::vec(-1f32..1.0, 2 * rows * 5);
            values.prop_map(move |it| {
                let array = |part: &[f32]| {
                    let values = part.iter().map(|it| it * 2f32.powi(size)).collect();
                    Array2::from_shape_vec((rows, 5), values).unwrap()
                };
                let (a, b) = it.split_at(rows * 5);
                [array(a), array(b)]
            })
        });
        prop::collection::vec(sample, 1..8)
    }

    fn sum<'a>(all: impl Iterator<Item = &'a [Array2<f32>; 2]>) -> Option<Array2<f32>> {
        let mut drift = Drift::new(5);
        all.for_each(|[float, own]| drift.add(float.view(), own.view()).unwrap());
        drift.finish()
    }

    proptest! {
        #[test]
        fn order_changes_nothing(samples in samples()) {
            prop_assert_eq!(sum(samples.iter()), sum(samples.iter().rev()));
        }

        #[test]
        fn it_is_the_mean_of_the_products(samples in samples()) {
            let found = sum(samples.iter()).unwrap();
            let mut expected = Array2::<f64>::zeros((5, 5));
            let mut rows = 0;
            for [float, own] in &samples {
                expected += &(float - own).mapv(f64::from).t().dot(&own.mapv(f64::from));
                rows += own.nrows();
            }
            let scale = expected.iter().fold(0f64, |a, b| a.max(b.abs()));
            for (a, b) in found.iter().zip(&expected) {
                let error = (f64::from(*a) * rows as f64 - b).abs();
                // Sums may cancel: what counts is the size of the terms.
                let terms: f64 = samples.iter().map(|it| f64::from(it[0].iter().chain(&it[1])
                    .fold(0f32, |a, b| a.max(b.abs()))).powi(2)).sum();
                prop_assert!(error <= 1e-5 * (scale + terms), "{a} {b}");
            }
        }
    }

    #[test]
    fn what_did_not_move_leaves_nothing_and_bad_values_are_an_error() {
        let x = Array2::from_elem((2, 5), 3.0);
        assert_eq!(sum([[x.clone(), x.clone()]].iter()), None);
        let bad = Array2::from_elem((2, 5), f32::NAN);
        assert!(Drift::new(5).add(bad.view(), x.view()).is_err());
        assert!(Drift::new(5).add(x.view(), bad.view()).is_err());
        assert!(Drift::new(4).add(x.view(), x.view()).is_err());
    }
}
