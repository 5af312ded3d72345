//! What rounding a weight costs at its output, on the calibration data.

use ndarray::{Array2, ArrayView2, Axis, s};

use super::stats::{Hessian, InputStats};
use onnxq_ir::tensor::QMatrix;

/// Rows of the Hessian that are used at a time.
const PANEL: usize = 256;

/// Mean squares of a weight's output over the calibration data, summed over output channels;
/// those of several parts of a weight may be added.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct OutputError {
    /// `Σ Δ H Δᵀ`, `Δ = w − ŵ`.
    pub error: f64,
    /// `Σ w H wᵀ`.
    pub signal: f64,
}

/// The output error of some rows of a weight, `[n, k]`. Without a Hessian inputs count as
/// uncorrelated, without statistics as of the same size, too.
pub fn output_error(rows: ArrayView2<f32>, q: &QMatrix, stats: Option<&InputStats>) -> OutputError {
    let [error] = output_errors(rows, [q], stats);
    error
}

/// As [`output_error`] of several solutions; what they share is computed once.
pub fn output_errors<const N: usize>(
    rows: ArrayView2<f32>,
    solutions: [&QMatrix; N],
    stats: Option<&InputStats>,
) -> [OutputError; N] {
    let signal = mean_square(rows, stats);
    solutions.map(|q| {
        let delta = &rows - &q.dequantize();
        OutputError { error: mean_square(delta.view(), stats), signal }
    })
}

fn mean_square(rows: ArrayView2<f32>, stats: Option<&InputStats>) -> f64 {
    match stats {
        Some(InputStats { hessian: Some(hessian), .. }) => full(rows, hessian),
        _ => diagonal(rows, stats.map(|it| &*it.mean_square)),
    }
}

/// `Σ x H xᵀ` over the rows `x`, `[n, k]`.
fn full(rows: ArrayView2<f32>, hessian: &Hessian) -> f64 {
    let mut sum = 0.0;
    for start in (0..hessian.k).step_by(PANEL) {
        let end = (start + PANEL).min(hessian.k);
        // Each pair of columns once, those off the diagonal twice as heavy.
        let panel = Array2::from_shape_fn((end, end - start), |(column, row)| {
            let row = start + row;
            match column.cmp(&row) {
                std::cmp::Ordering::Less => 2.0 * hessian.get(row, column),
                std::cmp::Ordering::Equal => hessian.get(row, row),
                std::cmp::Ordering::Greater => 0.0,
            }
        });
        let products = rows.slice(s![.., ..end]).dot(&panel);
        let own = rows.slice(s![.., start..end]);
        let terms = products.iter().zip(own).map(|(a, b)| f64::from(*a) * f64::from(*b));
        sum += terms.sum::<f64>();
    }
    sum
}

/// `Σ x_j² h_j` over the rows `x`.
fn diagonal(rows: ArrayView2<f32>, squares: Option<&[f32]>) -> f64 {
    let of_row = |row: ndarray::ArrayView1<f32>| -> f64 {
        let square = |it: &f32| f64::from(*it) * f64::from(*it);
        match squares {
            Some(squares) => row.iter().zip(squares).map(|(x, h)| square(x) * f64::from(*h)).sum(),
            None => row.iter().map(square).sum(),
        }
    };
    rows.axis_iter(Axis(0)).map(of_row).sum()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use ndarray::Array1;

    use super::*;
    use crate::{
        moments::Moments,
        scheme::{Granularity, Range, Scheme},
        solve::{Rtn, Solver},
        stats::Needs,
    };
    use onnxq_ir::tensor::{DType, ZeroPoints};

    const K: usize = PANEL + 44;

    fn wave(n: usize, k: usize, step: f32) -> Array2<f32> {
        Array2::from_shape_fn((n, k), |(i, j)| ((i * k + j) as f32 * step).sin())
    }

    fn rounded(w: &Array2<f32>) -> QMatrix {
        let scheme = Scheme {
            bits: 4,
            zero_points: ZeroPoints::Asymmetric,
            granularity: Granularity::Block(32),
            range: Range::Full,
            superblock: None,
        };
        Rtn.solve(w.view(), &scheme, scheme.shape(w.nrows(), K, DType::F32), None)
    }

    /// `Σ (d · x)²` over the rows of `d` and of `x`, per row of `x`.
    fn outputs(d: &Array2<f32>, x: &Array2<f32>) -> f64 {
        let y = d.mapv(f64::from).dot(&x.t().mapv(f64::from));
        y.iter().map(|it| it * it).sum::<f64>() / x.nrows() as f64
    }

    #[test]
    fn it_is_the_mean_square_of_the_difference_of_outputs() {
        let (w, x) = (wave(7, K, 1.3), wave(50, K, 0.77));
        let q = rounded(&w);
        let mut moments = Moments::new(K, Needs::Hessian);
        moments.add(x.view()).unwrap();
        let stats = moments.finish();
        let whole = output_error(w.view(), &q, Some(&stats));
        let delta = &w - &q.dequantize();
        assert_relative_eq!(whole.error, outputs(&delta, &x), max_relative = 1e-3);
        assert_relative_eq!(whole.signal, outputs(&w, &x), max_relative = 1e-3);
        let parts = [0..3, 3..7].map(|it| {
            let part = w.slice(s![it, ..]).to_owned();
            output_error(part.view(), &rounded(&part), Some(&stats))
        });
        let sum: f64 = parts.iter().map(|it| it.error).sum();
        assert_relative_eq!(whole.error, sum, max_relative = 1e-6);
    }

    #[test]
    fn without_a_hessian_columns_are_uncorrelated() {
        let (w, x) = (wave(3, K, 1.3), wave(9, K, 0.77));
        let q = rounded(&w);
        let mut moments = Moments::new(K, Needs::Diagonal);
        moments.add(x.view()).unwrap();
        let stats = moments.finish();
        let size = Array1::from(stats.mean_square.clone()).mapv(f32::sqrt);
        let plain = output_error((&w * &size).view(), &q, None);
        let own = output_error(w.view(), &q, Some(&stats));
        assert_relative_eq!(own.signal, plain.signal, max_relative = 1e-5);
        let delta = (&w - &q.dequantize()) * &size;
        let error: f64 = delta.iter().map(|it| f64::from(it * it)).sum();
        assert_relative_eq!(own.error, error, max_relative = 1e-4);
    }
}
