//! Scales that share the range of a channel between its activation and its weights.
//!
//! `s_j = max|x_j|^α / max|w_j|^(1 − α)`, after Xiao et al., "SmoothQuant: Accurate and Efficient
//! Post-Training Quantization for Large Language Models", 2022.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FindScales, Reader, Ties, Transform, Work, in_pieces};
use onnxq_ir::tensor::TensorError;
use onnxq_numerics::{
    specs::{Settings, Wrong, within},
    stats::InputStats,
};

/// Scales that make activations smoother, for formats that quantize them.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothQuant {
    /// How much of the difficulty moves from activations to weights: 0 to 1. Default: 0.5.
    pub alpha: f32,
    /// Where nothing before a weight can absorb the scales, a multiplication is inserted: one more
    /// node for the runtime. Default: false, the weight is left as it is.
    pub mul: bool,
}

impl Default for SmoothQuant {
    fn default() -> SmoothQuant {
        SmoothQuant { alpha: 0.5, mul: false }
    }
}

/// Scales stay within this factor of one.
const REACH: f32 = 1e5;

impl Settings for SmoothQuant {
    fn check(&self) -> Result<(), Wrong> {
        within("alpha", self.alpha, 0.0..=1.0)
    }
}

impl Transform for SmoothQuant {
    fn work(&self) -> Work<'_> {
        Work::Scales(self)
    }
}

impl FindScales for SmoothQuant {
    fn mul(&self) -> bool {
        self.mul
    }

    fn scales(
        &self,
        readers: &[Reader],
        stats: &InputStats,
        ties: Ties,
    ) -> Result<Vec<f32>, TensorError> {
        let activations = ties.pooled(&stats.max_abs, f32::max);
        let mut weights = vec![0f32; activations.len()];
        for reader in readers {
            let k = reader.rows.shape[1].max(1);
            in_pieces(&reader.rows, |_, values| {
                for row in values.chunks_exact(k) {
                    weights.iter_mut().zip(row).for_each(|(max, it)| *max = max.max(it.abs()));
                }
            })?;
        }
        let weights = ties.pooled(&weights, f32::max);
        Ok(activations.iter().zip(&weights).map(|(x, w)| self.scale(*x, *w)).collect())
    }
}

impl SmoothQuant {
    /// A channel without activations or weights has nothing to share.
    fn scale(&self, activation: f32, weight: f32) -> f32 {
        let is_live = |it: f32| it > 0.0 && it.is_finite();
        if !is_live(activation) || !is_live(weight) {
            return 1.0;
        }
        let scale = activation.powf(self.alpha) / weight.powf(1.0 - self.alpha);
        scale.clamp(1.0 / REACH, REACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::rescale;
    use onnxq_ir::tensor::{DType, Tensor, ZeroPoints};
    use onnxq_numerics::scheme::{Granularity, Range, Scheme};

    fn reader(shape: [usize; 2], values: &[f32]) -> Reader {
        let granularity = Granularity::Channel;
        Reader {
            rows: Tensor::from_f32(&shape, values.iter().copied()),
            scheme: Scheme {
                bits: 8,
                zero_points: ZeroPoints::Symmetric,
                granularity,
                range: Range::Full,
                superblock: None,
            },
            scale: DType::F32,
        }
    }

    fn stats(max_abs: &[f32]) -> InputStats {
        let mean_square = max_abs.iter().map(|it| it * it / 3.0).collect();
        InputStats { rows: 1, mean_square, max_abs: max_abs.to_vec(), hessian: None, drift: None }
    }

    #[test]
    fn the_range_is_shared_by_activation_and_weights() {
        let readers =
            [reader([1, 3], &[-4.0, 1.0, 0.0]), reader([2, 3], &[1., 1., 0., 2., -1., 0.])];
        let stats = stats(&[16.0, 100.0, 3.0]);
        let half = SmoothQuant::default();
        let found = half.scales(&readers, &stats, Ties::none(3)).unwrap();
        assert_eq!(found, [2.0, 10.0, 1.0]);
        // What is left of the activation is as large as what the weight became.
        assert_eq!(rescale(&stats, &found).max_abs, [8.0, 10.0, 3.0]);
        let none = SmoothQuant { alpha: 1.0, mul: false };
        let found = none.scales(&readers, &stats, Ties::none(3)).unwrap();
        assert_eq!(found, [16.0, 100.0, 1.0]);
    }

    #[test]
    fn outliers_of_the_activation_are_flattened() {
        let max: Vec<f32> = (0..64).map(|j| if j % 9 == 0 { 80.0 } else { 1.0 }).collect();
        let w: Vec<f32> = (0..128).map(|i| 0.05 + (i % 5) as f32 * 0.01).collect();
        let (readers, stats) = ([reader([2, 64], &w)], stats(&max));
        let found = SmoothQuant::default().scales(&readers, &stats, Ties::none(64)).unwrap();
        let spread = |it: &[f32]| {
            let high = it.iter().copied().fold(0.0, f32::max);
            high / it.iter().copied().fold(f32::INFINITY, f32::min)
        };
        let smooth = rescale(&stats, &found).max_abs;
        assert!(spread(&smooth) < spread(&max) / 5.0, "{} {}", spread(&smooth), spread(&max));
    }

    #[test]
    fn scales_stay_in_reach_and_dead_channels_alone() {
        let readers = [reader([1, 3], &[1e-30, 1.0, 1.0])];
        let stats = stats(&[1e30, 0.0, f32::INFINITY]);
        let found = SmoothQuant::default().scales(&readers, &stats, Ties::none(3)).unwrap();
        assert_eq!(found, [1e5, 1.0, 1.0]);
    }
}
