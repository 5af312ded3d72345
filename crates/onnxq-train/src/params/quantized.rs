//! A quantized weight with trained scales: `w = (q − zero) · scale`, `scale = start · exp(θ)`.
//!
//! The scale of a block is trained by its logarithm, so that a step changes it in proportion and never
//! its sign. Integers either stay as a solver left them, or are those nearest to a float weight that
//! is trained with the gradient of `w` itself where it is not clamped (straight through; Bengio et al.,
//! 2013; Esser et al., "Learned Step Size Quantization", 2020).

use half::f16;
use ndarray::Array2;

use onnxq_ir::tensor::{DType, QMatrix, QShape};

use crate::real::vectorized;

/// Rows are output channels, as in [`QMatrix`].
#[derive(Clone, Debug)]
pub struct Quantized {
    pub shape: QShape,
    /// `[n, k]`.
    codes: Vec<u8>,
    /// `[n, blocks]`.
    zeros: Vec<u8>,
    start: Vec<f32>,
    /// The largest code.
    most: f32,
    low: f32,
}

impl Quantized {
    pub fn new(matrix: &QMatrix) -> Quantized {
        let most = ((1u32 << matrix.shape.bits) - 1) as f32;
        // The values of a narrow range leave the lowest code out; then training does, too.
        let low = if matrix.quantized.iter().any(|it| *it == 0) { 0.0 } else { 1.0 };
        Quantized {
            shape: matrix.shape,
            codes: matrix.quantized.iter().copied().collect(),
            zeros: matrix.zero_points.iter().copied().collect(),
            start: matrix.scales.iter().copied().collect(),
            most,
            low,
        }
    }

    /// The scale of each block, as it is stored.
    pub fn scales(&self, theta: &[f32]) -> Vec<f32> {
        let half = self.shape.scale == DType::F16;
        let stored = |it: f32| if half { f16::from_f32(it).to_f32() } else { it };
        self.start.iter().zip(theta).map(|(start, theta)| stored(start * theta.exp())).collect()
    }

    /// The float weight, `[n, k]`. With `shadow`, integers are those nearest to it.
    pub fn weight(&self, theta: &[f32], shadow: Option<&[f32]>) -> Vec<f32> {
        let scales = self.scales(theta);
        let mut values = vec![0.0; self.codes.len()];
        vectorized(|| {
            self.each_block(|block, range| {
                let (scale, zero) = (scales[block], f32::from(self.zeros[block]));
                let out = &mut values[range.clone()];
                match shadow {
                    None => {
                        for (it, code) in out.iter_mut().zip(&self.codes[range]) {
                            *it = (f32::from(*code) - zero) * scale;
                        }
                    }
                    Some(shadow) => {
                        for (it, w) in out.iter_mut().zip(&shadow[range]) {
                            *it = (self.code(*w, scale, zero) - zero) * scale;
                        }
                    }
                }
            });
        });
        values
    }

    #[inline(always)]
    fn code(&self, w: f32, scale: f32, zero: f32) -> f32 {
        let place = if scale == 0.0 { zero } else { nearest(w / scale) + zero };
        place.max(self.low).min(self.most)
    }

    /// Blocks by number, each with the range of its elements in `[n, k]`.
    #[inline(always)]
    fn each_block(&self, mut of: impl FnMut(usize, std::ops::Range<usize>)) {
        let QShape { n, k, block, .. } = self.shape;
        let blocks = self.shape.blocks();
        for row in 0..n {
            for index in 0..blocks {
                let range = row * k + index * block..row * k + ((index + 1) * block).min(k);
                of(row * blocks + index, range);
            }
        }
    }

    /// Adds the gradients of the scales' logarithms: `Σ dw · (q − zero) · scale` of each block.
    pub fn reduce(&self, theta: &[f32], dw: &[f32], sums: &mut [f32]) {
        let scales = self.scales(theta);
        vectorized(|| {
            self.each_block(|block, range| {
                let zero = f32::from(self.zeros[block]);
                let mut lanes = [0.0f32; 8];
                for (i, (d, code)) in dw[range.clone()].iter().zip(&self.codes[range]).enumerate() {
                    lanes[i % 8] += d * (f32::from(*code) - zero);
                }
                sums[block] += lanes.iter().sum::<f32>() * scales[block];
            });
        });
    }

    /// The same of gradients that lie by column, `[k, n]`.
    pub fn reduce_flipped(&self, theta: &[f32], dw: &[f32], sums: &mut [f32]) {
        let QShape { n, k, .. } = self.shape;
        let dw = super::weights::transposed(dw, k, n);
        self.reduce(theta, &dw, sums);
    }

    /// The gradients with a float weight beside: of the scales' logarithms, and, in place, of the weight.
    pub fn reduce_through(&self, theta: &[f32], shadow: &[f32], dw: &mut [f32], sums: &mut [f32]) {
        let scales = self.scales(theta);
        vectorized(|| {
            self.each_block(|block, range| {
                let (scale, zero) = (scales[block], f32::from(self.zeros[block]));
                let mut sum = 0.0;
                for (d, w) in dw[range.clone()].iter_mut().zip(&shadow[range]) {
                    let place = if scale == 0.0 { 0.0 } else { w / scale };
                    let code = self.code(*w, scale, zero) - zero;
                    let inside = place + zero >= self.low - 0.5 && place + zero <= self.most + 0.5;
                    sum += *d * if inside { code - place } else { code };
                    *d = if inside { *d } else { 0.0 };
                }
                sums[block] += sum * scale;
            });
        });
    }

    /// What is written: the integers and scales of the last forward pass.
    pub fn matrix(&self, theta: &[f32], shadow: Option<&[f32]>) -> QMatrix {
        let QShape { n, k, .. } = self.shape;
        let (scales, blocks) = (self.scales(theta), self.shape.blocks());
        let mut codes = self.codes.clone();
        if let Some(shadow) = shadow {
            self.each_block(|block, range| {
                let zero = f32::from(self.zeros[block]);
                for (code, w) in codes[range.clone()].iter_mut().zip(&shadow[range]) {
                    *code = self.code(*w, scales[block], zero) as u8;
                }
            });
        }
        let fits = "as many as the shape says";
        QMatrix {
            shape: self.shape,
            quantized: Array2::from_shape_vec((n, k), codes).expect(fits),
            scales: Array2::from_shape_vec((n, blocks), scales).expect(fits),
            zero_points: Array2::from_shape_vec((n, blocks), self.zeros.clone()).expect(fits),
        }
    }
}

/// The nearest whole number, halves to the even one. Adding 1.5 · 2^23 leaves no room for a fraction;
/// what is larger than 2^22 is clamped by whoever asks.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    const MOST: f32 = 4_194_304.0;
    let x = if x > MOST { MOST } else { x };
    let x = if x < -MOST { -MOST } else { x };
    (x + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::ZeroPoints;

    fn example(scale: DType) -> Quantized {
        let shape =
            QShape { n: 2, k: 5, block: 3, bits: 2, zero_points: ZeroPoints::Asymmetric, scale };
        Quantized::new(&QMatrix {
            shape,
            quantized: Array2::from_shape_vec((2, 5), vec![0, 1, 2, 3, 0, 3, 2, 1, 0, 2]).unwrap(),
            scales: Array2::from_shape_vec((2, 2), vec![0.5, 0.25, 0.1, -1.0]).unwrap(),
            zero_points: Array2::from_shape_vec((2, 2), vec![1, 0, 2, 3]).unwrap(),
        })
    }

    #[test]
    fn what_is_written_is_what_was_computed() {
        let (theta, q) = ([0.1, -0.2, 0.3, 0.0], example(DType::F16));
        let shadow: Vec<f32> = (0..10).map(|it| it as f32 * 0.17 - 0.8).collect();
        for shadow in [None, Some(&shadow[..])] {
            let written = q.matrix(&theta, shadow).dequantize();
            assert_eq!(written.iter().copied().collect::<Vec<_>>(), q.weight(&theta, shadow));
        }
    }

    #[test]
    fn gradients_of_scales_are_differences() {
        let (q, dw) =
            (example(DType::F32), [0.3f32, -1.0, 0.5, 2.0, -0.4, 0.1, 0.7, -0.6, 1.1, 0.2]);
        let loss = |theta: &[f32]| -> f64 {
            q.weight(theta, None).iter().zip(&dw).map(|(w, d)| f64::from(w * d)).sum()
        };
        let theta = [0.1, -0.2, 0.3, 0.0];
        let mut sums = [0.0; 4];
        q.reduce(&theta, &dw, &mut sums);
        for at in 0..4 {
            let moved = |by: f32| {
                let mut theta = theta;
                theta[at] += by;
                loss(&theta)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - f64::from(sums[at])).abs() < 1e-4, "{at}: {slope} {}", sums[at]);
        }
    }

    #[test]
    fn what_is_clamped_has_no_gradient_of_its_own() {
        let q = example(DType::F32);
        let mut dw = [1.0f32; 10];
        let (mut sums, shadow) =
            ([0.0; 4], [9.0f32, 0.1, -9.0, 0.3, 0.2, 0.0, 0.1, 0.05, 1.0, 1.0]);
        q.reduce_through(&[0.0; 4], &shadow, &mut dw, &mut sums);
        assert_eq!(dw[..5], [0.0, 1.0, 0.0, 1.0, 1.0]);
        // 2 and −1 steps of the clamped ones, 0 − 0.2 of the other; by the scale of 0.5.
        assert!((sums[0] - 0.5 * (2.0 - 1.0 - 0.2)).abs() < 1e-6, "{}", sums[0]);
    }
}
