//! Second moments of inputs, summed so that no order of samples changes a bit.
//!
//! Every entry of a sample's `Xᵀ X` is rounded as [`exact_sum`](super::exact_sum) has it. The
//! quantum follows from the largest entry of the sample.

use std::{collections::BTreeMap, ops::Range};

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, linalg::general_mat_mul, s};

use super::{
    exact_sum::{BIN, exponent, quantum, rounder},
    guided::{counted, weighted},
    solve::BadStats,
    stats::{Hessian, InputStats, Needs},
};

/// Columns of `Xᵀ X` that are computed at a time: what bounds the scratch memory.
const PANEL: usize = 256;

/// Sums over the samples seen so far. `k` is the length of a row of an input.
#[derive(Clone, Debug)]
pub struct Moments {
    k: usize,
    needs: Needs,
    rows: u64,
    max_abs: Vec<f32>,
    /// Sums by the magnitude of the samples.
    bins: BTreeMap<i32, Sums>,
}

#[derive(Clone, Debug)]
struct Sums {
    /// `Σ x_j²`, `[k]`.
    squares: Vec<f64>,
    /// The lower triangle of `Σ x xᵀ`, row by row; empty unless needed.
    lower: Vec<f64>,
}

impl Moments {
    pub fn new(k: usize, needs: Needs) -> Moments {
        Moments { k, needs, rows: 0, max_abs: vec![0.0; k], bins: BTreeMap::new() }
    }

    /// Bytes that moments and the statistics made of them may take. Two accumulators: samples of
    /// one model hardly differ by more.
    pub fn bytes(k: usize, needs: Needs) -> usize {
        let (single, double) = (size_of::<f32>(), size_of::<f64>());
        let vectors = k * (2 * single + 2 * double + double);
        match needs {
            Needs::Hessian => {
                let lower = Hessian::len_of(k);
                vectors + 2 * lower * double + lower * single + PANEL.min(k) * k * single
            }
            Needs::Diagonal | Needs::Nothing => vectors,
        }
    }

    /// Adds a sample, `[rows, k]`. What it adds depends on the sample alone.
    pub fn add(&mut self, x: ArrayView2<f32>) -> Result<(), BadStats> {
        self.add_terms(x, None)
    }

    /// Adds a sample whose rows count differently: 1 is once, and rows that count nothing are as if
    /// absent. The weights that count should be 1 in the mean: means are taken over rows.
    pub fn add_weighted(&mut self, x: ArrayView2<f32>, weights: &[f32]) -> Result<(), BadStats> {
        let (seen, terms) = (counted(x, weights), weighted(x, weights));
        self.add_terms(terms.view(), Some(columns(seen.view()).1))
    }

    /// `max_abs` are those of the rows as they were, if `x` is something else.
    fn add_terms(&mut self, x: ArrayView2<f32>, max_abs: Option<Vec<f32>>) -> Result<(), BadStats> {
        if x.ncols() != self.k {
            return Err(BadStats("rows of another length"));
        }
        let (squares, largest) = columns(x);
        let max_abs = max_abs.unwrap_or_else(|| largest.clone());
        if !largest.iter().chain(&max_abs).all(|it| it.is_finite()) {
            return Err(BadStats("values that are not finite"));
        }
        // No product of columns exceeds the largest square; a little room for rounding in f32.
        let largest = squares.iter().fold(0f64, |a, b| a.max(*b)) * 1.001;
        if largest > f64::from(f32::MAX) {
            return Err(BadStats("values whose squares are no floats"));
        }
        self.rows += x.nrows() as u64;
        self.max_abs.iter_mut().zip(&max_abs).for_each(|(a, b)| *a = a.max(*b));
        if largest > 0.0 {
            let bin = exponent(largest).div_euclid(BIN);
            let sums = self.bins.entry(bin).or_insert_with(|| Sums::new(self.k, self.needs));
            sums.add(x, &squares, quantum(bin));
        }
        Ok(())
    }

    /// Adds the samples of `other`, of the same `k` and needs.
    pub fn merge(&mut self, other: Moments) {
        assert_eq!((self.k, self.needs), (other.k, other.needs), "moments of another input");
        self.rows += other.rows;
        self.max_abs.iter_mut().zip(&other.max_abs).for_each(|(a, b)| *a = a.max(*b));
        for (bin, sums) in other.bins {
            match self.bins.get_mut(&bin) {
                Some(own) => own.merge(&sums),
                None => drop(self.bins.insert(bin, sums)),
            }
        }
    }

    pub fn finish(self) -> InputStats {
        let scale = if self.rows == 0 { 0.0 } else { 1.0 / self.rows as f64 };
        let mut bins = self.bins.into_values();
        let mut sums = bins.next().unwrap_or_else(|| Sums::new(self.k, self.needs));
        bins.for_each(|it| sums.merge(&it));
        let mean = |sums: Vec<f64>| sums.into_iter().map(|it| (it * scale) as f32).collect();
        let hessian =
            (self.needs == Needs::Hessian).then(|| Hessian { k: self.k, lower: mean(sums.lower) });
        let mean_square = mean(sums.squares);
        InputStats { rows: self.rows, mean_square, max_abs: self.max_abs, hessian, drift: None }
    }
}

impl Sums {
    fn new(k: usize, needs: Needs) -> Sums {
        let lower = if needs == Needs::Hessian { Hessian::len_of(k) } else { 0 };
        Sums { squares: vec![0.0; k], lower: vec![0.0; lower] }
    }

    fn add(&mut self, x: ArrayView2<f32>, squares: &[f64], quantum: f64) {
        let round = rounder(quantum);
        for (sum, square) in self.squares.iter_mut().zip(squares) {
            *sum += (square + round) - round;
        }
        if self.lower.is_empty() {
            return;
        }
        let k = x.ncols();
        let mut scratch = Array2::zeros((PANEL.min(k), k));
        for start in (0..k).step_by(PANEL) {
            let panel = start..(start + PANEL).min(k);
            let mut products = scratch.slice_mut(s![..panel.len(), ..panel.end]);
            let own = x.slice(s![.., panel.clone()]);
            let earlier = x.slice(s![.., ..panel.end]);
            general_mat_mul(1.0, &own.t(), &earlier, 0.0, &mut products);
            self.add_panel(panel, products, round);
        }
    }

    /// Adds the products of the columns `panel` with all up to the last of them.
    fn add_panel(&mut self, panel: Range<usize>, products: ArrayViewMut2<f32>, round: f64) {
        for (row, products) in panel.zip(products.axis_iter(Axis(0))) {
            let products = products.to_slice().expect("rows are contiguous");
            let start = row * (row + 1) / 2;
            let sums = &mut self.lower[start..=start + row];
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum += (f64::from(*product) + round) - round;
            }
        }
    }

    fn merge(&mut self, other: &Sums) {
        self.squares.iter_mut().zip(&other.squares).for_each(|(a, b)| *a += b);
        self.lower.iter_mut().zip(&other.lower).for_each(|(a, b)| *a += b);
    }
}

/// `Σ x_j²` and `max |x_j|` of each column. A value that is not finite makes its maximum so.
fn columns(x: ArrayView2<f32>) -> (Vec<f64>, Vec<f32>) {
    let (mut squares, mut max_abs) = (vec![0f64; x.ncols()], vec![0f32; x.ncols()]);
    for row in x.axis_iter(Axis(0)) {
        for ((value, square), max) in row.iter().zip(&mut squares).zip(&mut max_abs) {
            *square += f64::from(*value) * f64::from(*value);
            // Not `f32::max`, which would forget that a value is no number.
            let size = value.abs();
            *max = if size <= *max { *max } else { size };
        }
    }
    let finite = |it: &f64| it.is_finite();
    if !squares.iter().all(finite) {
        max_abs.fill(f32::INFINITY);
    }
    (squares, max_abs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples() -> impl Strategy<Value = Vec<Array2<f32>>> {
        (1usize..12).prop_flat_map(|k| {
            let sample = (0usize..6, -12i32..12).prop_flat_map(move |(rows, size)| {
                prop::collection::vec(-1f32..1.0, rows * k).prop_map(move |it| {
                    let it = it.into_iter().map(|it| it * 2f32.powi(size)).collect();
                    Array2::from_shape_vec((rows, k), it).unwrap()
                })
            });
            prop::collection::vec(sample, 1..9)
        })
    }

    fn sum<'a>(k: usize, needs: Needs, all: impl Iterator<Item = &'a Array2<f32>>) -> Moments {
        let mut moments = Moments::new(k, needs);
        all.for_each(|it| moments.add(it.view()).unwrap());
        moments
    }

    proptest! {
        #[test]
        fn no_order_and_no_split_changes_a_bit(
            samples in samples(), split in any::<prop::sample::Index>(), turn in any::<bool>(),
        ) {
            let k = samples[0].ncols();
            let split = split.index(samples.len());
            for needs in [Needs::Diagonal, Needs::Hessian] {
                let whole = sum(k, needs, samples.iter()).finish();
                let backwards = sum(k, needs, samples.iter().rev()).finish();
                prop_assert_eq!(&whole, &backwards);
                let mut parts = [
                    sum(k, needs, samples[split..].iter().rev()),
                    sum(k, needs, samples[..split].iter()),
                ];
                if turn {
                    parts.reverse();
                }
                let [mut first, second] = parts;
                first.merge(second);
                prop_assert_eq!(&whole, &first.finish());
            }
        }

        #[test]
        fn moments_are_those_of_plain_sums(samples in samples()) {
            let k = samples[0].ncols();
            let stats = sum(k, Needs::Hessian, samples.iter()).finish();
            let hessian = stats.hessian.as_ref().unwrap();
            let rows: Vec<_> = samples.iter().flat_map(|it| it.rows()).collect();
            prop_assert_eq!(stats.rows, rows.len() as u64);
            let mean = |i: usize, j: usize| {
                let sum: f64 = rows.iter().map(|it| f64::from(it[i]) * f64::from(it[j])).sum();
                sum / rows.len().max(1) as f64
            };
            let largest = (0..k).map(|it| mean(it, it)).fold(0.0, f64::max);
            for i in 0..k {
                let near = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-6 * largest;
                prop_assert!(near(stats.mean_square[i], mean(i, i)));
                prop_assert!((0..=i).all(|j| near(hessian.get(i, j), mean(i, j))));
                let max = rows.iter().map(|it| it[i].abs()).fold(0.0, f32::max);
                prop_assert_eq!(stats.max_abs[i], max);
            }
        }
    }

    #[test]
    fn wide_inputs_take_several_panels() {
        let k = PANEL + 3;
        let x = Array2::from_shape_fn((2, k), |(i, j)| ((i * 31 + j * 7) % 5) as f32 - 2.0);
        let stats = sum(k, Needs::Hessian, [&x].into_iter()).finish();
        let expected = x.t().dot(&x) / 2.0;
        let hessian = stats.hessian.unwrap();
        assert!(expected.indexed_iter().all(|((i, j), it)| hessian.get(i, j) == *it));
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        for (bad, why) in [
            (f32::NAN, "values that are not finite"),
            (f32::NEG_INFINITY, "values that are not finite"),
            (1e30, "values whose squares are no floats"),
        ] {
            let mut x = Array2::<f32>::ones((3, 4));
            x[(1, 2)] = bad;
            let mut moments = Moments::new(4, Needs::Diagonal);
            assert_eq!(moments.add(x.view()), Err(BadStats(why)));
            assert_eq!(moments.finish().rows, 0);
        }
        let other = Array2::<f32>::ones((3, 5));
        assert!(Moments::new(4, Needs::Diagonal).add(other.view()).is_err());
    }
}
