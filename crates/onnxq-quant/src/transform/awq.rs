//! Activation-aware scales: channels with large activations get more of the weights' precision.
//!
//! `s_j = (√E[x_j²])^α`, divided by the geometric mean of its extremes. `α` is searched: the one
//! whose weights, rounded to nearest, change the output least. After Lin et al., "AWQ:
//! Activation-aware Weight Quantization", 2023; without its clipping, which solvers do better.

use ndarray::{Array2, Axis};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FindScales, Reader, Ties, Transform, Work, in_pieces, rescale};
use onnxq_ir::tensor::TensorError;
use onnxq_numerics::{
    error::output_error,
    solve::{Rtn, Solver},
    specs::{Settings, Wrong, within},
    stats::InputStats,
};

/// Scales that keep weights precise where activations are large, found by search.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Awq {
    /// How many powers from 0 (no scaling) to 1 are tried. Default: 20.
    pub steps: usize,
    /// Where nothing before a weight can absorb the scales, a multiplication is inserted: one more
    /// node for the runtime. Default: false, the weight is left as it is.
    pub mul: bool,
}

impl Default for Awq {
    fn default() -> Awq {
        Awq { steps: 20, mul: false }
    }
}

/// Rows of a weight that the search looks at.
const ROWS: usize = 512;

/// Scales stay within this factor of one.
const REACH: f32 = 1e4;

impl Settings for Awq {
    fn check(&self) -> Result<(), Wrong> {
        within("steps", self.steps, 1..=1000)
    }
}

impl Transform for Awq {
    fn work(&self) -> Work<'_> {
        Work::Scales(self)
    }
}

impl FindScales for Awq {
    fn mul(&self) -> bool {
        self.mul
    }

    fn scales(
        &self,
        readers: &[Reader],
        stats: &InputStats,
        ties: Ties,
    ) -> Result<Vec<f32>, TensorError> {
        let squares = ties.pooled(&stats.mean_square, |a, b| a + b);
        let magnitudes: Vec<f32> = squares.iter().map(|it| it.sqrt()).collect();
        let samples: Vec<Sample> = readers.iter().map(Sample::of).collect::<Result<_, _>>()?;
        let powers = (0..=self.steps).map(|step| step as f32 / self.steps as f32);
        let mut candidates: Vec<Vec<f32>> = powers.map(|it| scales(&magnitudes, it)).collect();
        let error = |scales: &Vec<f32>| -> f64 {
            let stats = rescale(stats, scales);
            samples.iter().map(|it| it.error(scales, &stats)).sum()
        };
        let errors: Vec<f64> = candidates.par_iter().map(error).collect();
        let mut best = 0;
        for (at, error) in errors.iter().enumerate() {
            if *error < errors[best] {
                best = at;
            }
        }
        Ok(candidates.swap_remove(best))
    }
}

/// Magnitudes to a power, in the middle of which (as logarithms) lies one. A channel that was never
/// active keeps its scale.
fn scales(magnitudes: &[f32], power: f32) -> Vec<f32> {
    let is_live = |it: f32| it > 0.0 && it.is_finite();
    let live = magnitudes.iter().copied().filter(|it| is_live(*it));
    let (low, high) =
        live.fold((f32::INFINITY, 0f32), |(low, high), it| (low.min(it), high.max(it)));
    let middle = low.sqrt() * high.sqrt();
    let scale = |it: &f32| match is_live(*it) {
        true => (it / middle).powf(power).clamp(1.0 / REACH, REACH),
        false => 1.0,
    };
    magnitudes.iter().map(scale).collect()
}

/// Evenly spread rows of a weight.
struct Sample<'a> {
    reader: &'a Reader,
    rows: Array2<f32>,
    /// How many rows of the weight each of them stands for.
    step: usize,
}

impl Sample<'_> {
    fn of(reader: &Reader) -> Result<Sample<'_>, TensorError> {
        let (n, k) = (reader.rows.shape[0], reader.rows.shape[1]);
        let step = n.div_ceil(ROWS).max(1);
        let mut values = Vec::with_capacity(n.div_ceil(step) * k);
        in_pieces(&reader.rows, |range, piece| {
            for row in range.clone().filter(|it| it % step == 0) {
                let at = (row - range.start) * k;
                values.extend_from_slice(&piece[at..at + k]);
            }
        })?;
        let rows = Array2::from_shape_vec((n.div_ceil(step), k), values).expect("rows of k values");
        Ok(Sample { reader, rows, step })
    }

    /// The error of the whole weight's output, by what the sampled rows show.
    fn error(&self, scales: &[f32], stats: &InputStats) -> f64 {
        let mut rows = self.rows.clone();
        for mut row in rows.axis_iter_mut(Axis(0)) {
            row.iter_mut().zip(scales).for_each(|(it, scale)| *it *= scale);
        }
        let shape = self.reader.scheme.shape(rows.nrows(), rows.ncols(), self.reader.scale);
        let q = Rtn.solve(rows.view(), &self.reader.scheme, shape, None);
        output_error(rows.view(), &q, Some(stats)).error * self.step as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::{DType, Tensor, ZeroPoints};
    use onnxq_numerics::scheme::{Granularity, Range, Scheme};

    const K: usize = 128;

    fn scheme() -> Scheme {
        let granularity = Granularity::Block(32);
        Scheme {
            bits: 4,
            zero_points: ZeroPoints::Symmetric,
            granularity,
            range: Range::Full,
            superblock: None,
        }
    }

    fn reader(n: usize) -> Reader {
        // Quadratic phases: a fixed, even mix of values that no axis repeats.
        let value = |i: usize| ((i * i % 1009) as f32 * 0.37 + i as f32 * 0.11).sin() * 0.1;
        let rows = Tensor::from_f32(&[n, K], (0..n * K).map(value));
        Reader { rows, scheme: scheme(), scale: DType::F32 }
    }

    /// A few channels carry most of the signal.
    fn outliers() -> InputStats {
        let magnitude = |j: usize| if j % 43 == 5 { 30.0 } else { 0.5 + (j % 7) as f32 * 0.1 };
        let magnitudes: Vec<f32> = (0..K).map(magnitude).collect();
        InputStats {
            rows: 100,
            mean_square: magnitudes.iter().map(|it| it * it).collect(),
            max_abs: magnitudes.iter().map(|it| it * 3.0).collect(),
            hessian: None,
            drift: None,
        }
    }

    /// `Σ (w_ij − ŵ_ij)² E[x_j²]` with `ŵ` the weight as it is stored, scales taken back.
    fn loss(reader: &Reader, stats: &InputStats, scales: &[f32]) -> f64 {
        let scaled = reader.rows.scaled(1, scales);
        let n = reader.rows.shape[0];
        let rows = Array2::from_shape_vec((n, K), scaled.to_f32().unwrap()).unwrap();
        let shape = reader.scheme.shape(n, K, reader.scale);
        let back = Rtn.solve(rows.view(), &reader.scheme, shape, None).dequantize();
        let mut sum = 0.0;
        for ((i, j), w) in rows.indexed_iter() {
            let delta = f64::from(w - back[(i, j)]) / f64::from(scales[j]);
            sum += delta * delta * f64::from(stats.mean_square[j]);
        }
        sum
    }

    #[test]
    fn dominant_channels_keep_their_precision() {
        let (reader, stats) = (reader(64), outliers());
        let found = Awq::default().scales(&[reader], &stats, Ties::none(K)).unwrap();
        let reader = self::reader(64);
        let (plain, scaled) = (loss(&reader, &stats, &[1.0; K]), loss(&reader, &stats, &found));
        assert!(scaled <= 0.7 * plain, "{scaled} of {plain}");
    }

    #[test]
    fn even_channels_are_left_alone_or_gain() {
        let stats = InputStats { mean_square: vec![1.0; K], ..outliers() };
        let found = Awq::default().scales(&[reader(16)], &stats, Ties::none(K)).unwrap();
        assert_eq!(found, [1.0; K]);
        let stats = outliers();
        let found = Awq::default().scales(&[reader(600)], &stats, Ties::none(K)).unwrap();
        let reader = reader(600);
        assert!(loss(&reader, &stats, &found) <= loss(&reader, &stats, &[1.0; K]));
    }

    #[test]
    fn tied_channels_get_one_scale_and_dead_ones_keep_theirs() {
        let mut stats = outliers();
        stats.mean_square[7] = 0.0;
        let found = Awq::default().scales(&[reader(16)], &stats, Ties::none(K)).unwrap();
        assert_eq!(found[7], 1.0);
        let ties = Ties { heads: 4, shared: 2, size: 32 };
        let found = Awq::default().scales(&[reader(16)], &stats, ties).unwrap();
        assert!((0..32).all(|j| found[j] == found[j + 32] && found[j + 64] == found[j + 96]));
        assert!(found.iter().all(|it| it.is_finite() && *it > 0.0));
    }
}
