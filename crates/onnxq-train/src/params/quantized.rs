//! A quantized weight with trained scales: `w = (q − zero) · scale`, `scale = start · exp(θ)`.
//!
//! The scale of a block is trained by its logarithm, so that a step changes it in proportion and never
//! its sign. Integers either stay as a solver left them, or are those nearest to a float weight in units
//! of `start`, which is trained with the gradient of `w` itself where it is not clamped (straight
//! through; Bengio et al., 2013). Units are those of the beginning, because a solver's result lies
//! exactly on its grid: in units of the trained scale its gradient would be none there, and an
//! optimizer that looks at signs would follow rounding errors.

use std::ops::Range;

use half::f16;
use ndarray::Array2;

use onnxq_ir::tensor::{DType, QMatrix, QShape};

use super::weights::transposed;
use crate::real::vectorized;

/// A matrix of `n` output channels by `k`, in the layout in which products read it, so that neither a
/// step nor its gradients turn it around.
#[derive(Clone, Debug)]
pub struct Quantized {
    pub shape: QShape,
    pub layout: Layout,
    /// In the layout.
    codes: Vec<u8>,
    /// By block in the layout, as are scales and their logarithms.
    zeros: Vec<u8>,
    start: Vec<f32>,
    /// The mean step of the grid at the beginning, in which rates are given: matrices differ in magnitude,
    /// and with it in how far a weight is from the next integer.
    pub step: f32,
    /// The largest code.
    most: f32,
    low: f32,
}

/// How elements and blocks follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `[n, k]`, blocks `[n, blocks]`: the elements of a block are neighbours.
    ByRow,
    /// `[k, n]`, blocks `[blocks, n]`: neighbours are of different blocks.
    ByColumn,
}

impl Layout {
    /// The elements of a matrix in this layout.
    fn of<T: Copy + Default>(self, matrix: &Array2<T>) -> Vec<T> {
        let (rows, columns) = matrix.dim();
        let by_row: Vec<T> = matrix.iter().copied().collect();
        match self {
            Layout::ByRow => by_row,
            Layout::ByColumn => transposed(&by_row, rows, columns),
        }
    }

    /// The matrix of elements in this layout.
    fn matrix<T: Copy + Default>(self, values: Vec<T>, [rows, columns]: [usize; 2]) -> Array2<T> {
        let by_row = match self {
            Layout::ByRow => values,
            Layout::ByColumn => transposed(&values, columns, rows),
        };
        Array2::from_shape_vec((rows, columns), by_row).expect("as many as the shape says")
    }
}

/// Elements that follow each other, and the blocks they are of.
struct Run {
    elements: Range<usize>,
    blocks: Blocks,
}

/// What holds in a block.
#[derive(Clone, Copy)]
struct Block {
    scale: f32,
    /// The scale at the beginning, in which float weights are rounded.
    unit: f32,
    zero: f32,
}

enum Blocks {
    /// All of one block.
    One(usize),
    /// Each of another one.
    Each(Range<usize>),
}

impl Quantized {
    pub fn new(matrix: &QMatrix, layout: Layout) -> Quantized {
        let most = ((1u32 << matrix.shape.bits) - 1) as f32;
        // The values of a narrow range leave the lowest code out; then training does, too.
        let low = if matrix.quantized.iter().any(|it| *it == 0) { 0.0 } else { 1.0 };
        let sum: f64 = matrix.scales.iter().map(|it| f64::from(it.abs())).sum();
        Quantized {
            shape: matrix.shape,
            layout,
            codes: layout.of(&matrix.quantized),
            zeros: layout.of(&matrix.zero_points),
            start: layout.of(&matrix.scales),
            step: (sum / matrix.scales.len().max(1) as f64) as f32,
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

    /// The float weight in its layout. With `shadow`, integers are those nearest to it.
    pub fn weight(&self, theta: &[f32], shadow: Option<&[f32]>) -> Vec<f32> {
        let mut values = vec![0.0; self.codes.len()];
        self.fill(theta, shadow, &mut values);
        values
    }

    /// Writes [`Quantized::weight`] where it lay before.
    pub fn fill(&self, theta: &[f32], shadow: Option<&[f32]>, values: &mut [f32]) {
        let scales = self.scales(theta);
        vectorized(|| {
            self.each_run(|Run { elements, blocks }| {
                let out = &mut values[elements.clone()];
                match shadow {
                    None => {
                        let codes = out.iter_mut().zip(&self.codes[elements]);
                        self.with_blocks(codes, &scales, blocks, |(it, code), block| {
                            *it = (f32::from(*code) - block.zero) * block.scale;
                        });
                    }
                    Some(shadow) => {
                        let floats = out.iter_mut().zip(&shadow[elements]);
                        self.with_blocks(floats, &scales, blocks, |(it, w), block| {
                            *it = (self.code(*w, block) - block.zero) * block.scale;
                        });
                    }
                }
            });
        });
    }

    #[inline(always)]
    fn code(&self, w: f32, Block { unit, zero, .. }: Block) -> f32 {
        let place = if unit == 0.0 { zero } else { nearest(w / unit) + zero };
        place.max(self.low).min(self.most)
    }

    #[inline(always)]
    fn each_run(&self, mut of: impl FnMut(Run)) {
        let QShape { n, k, block, .. } = self.shape;
        let count = self.shape.blocks();
        match self.layout {
            Layout::ByRow => {
                for row in 0..n {
                    for index in 0..count {
                        let end = ((index + 1) * block).min(k);
                        let elements = row * k + index * block..row * k + end;
                        of(Run { elements, blocks: Blocks::One(row * count + index) });
                    }
                }
            }
            Layout::ByColumn => {
                for row in 0..k {
                    let index = row / block;
                    let blocks = Blocks::Each(index * n..(index + 1) * n);
                    of(Run { elements: row * n..(row + 1) * n, blocks });
                }
            }
        }
    }

    /// The elements of a run, each with what holds in its block.
    #[inline(always)]
    fn with_blocks<T>(
        &self,
        elements: impl Iterator<Item = T>,
        scales: &[f32],
        blocks: Blocks,
        mut of: impl FnMut(T, Block),
    ) {
        match blocks {
            Blocks::One(at) => {
                let zero = f32::from(self.zeros[at]);
                let block = Block { scale: scales[at], unit: self.start[at], zero };
                elements.for_each(|it| of(it, block));
            }
            Blocks::Each(range) => {
                let units = self.start[range.clone()].iter().zip(&self.zeros[range.clone()]);
                let known = scales[range].iter().zip(units);
                elements.zip(known).for_each(|(it, (scale, (unit, zero)))| {
                    of(it, Block { scale: *scale, unit: *unit, zero: f32::from(*zero) });
                });
            }
        }
    }

    /// Adds the gradients of the scales' logarithms, `Σ dw · (q − zero) · scale` of each block, to
    /// `sums`, for gradients `dw` of the weight in its layout.
    pub fn reduce(&self, theta: &[f32], dw: &[f32], sums: &mut [f32]) {
        let scales = self.scales(theta);
        let mut own = vec![0.0f32; sums.len()];
        vectorized(|| {
            self.each_run(|Run { elements, blocks }| {
                let pairs = dw[elements.clone()].iter().zip(&self.codes[elements]);
                match blocks {
                    Blocks::One(at) => {
                        let zero = f32::from(self.zeros[at]);
                        let mut lanes = [0.0f32; 8];
                        for (i, (d, code)) in pairs.enumerate() {
                            lanes[i % 8] += d * (f32::from(*code) - zero);
                        }
                        own[at] = lanes.iter().sum();
                    }
                    Blocks::Each(range) => {
                        let zeros = &self.zeros[range.clone()];
                        for ((sum, zero), (d, code)) in own[range].iter_mut().zip(zeros).zip(pairs)
                        {
                            *sum += d * (f32::from(*code) - f32::from(*zero));
                        }
                    }
                }
            });
            for ((sum, own), scale) in sums.iter_mut().zip(&own).zip(&scales) {
                *sum += own * scale;
            }
        });
    }

    /// The gradients with a float weight beside: of the scales' logarithms, and, in place, of the weight.
    pub fn reduce_through(&self, theta: &[f32], shadow: &[f32], dw: &mut [f32], sums: &mut [f32]) {
        let scales = self.scales(theta);
        // The integer, and whether the gradient passes.
        let of = |w: f32, block: Block| {
            let place = if block.unit == 0.0 { 0.0 } else { w / block.unit } + block.zero;
            let inside = place >= self.low - 0.5 && place <= self.most + 0.5;
            (self.code(w, block) - block.zero, if inside { 1.0 } else { 0.0 })
        };
        let mut own = vec![0.0f32; sums.len()];
        vectorized(|| {
            self.each_run(|Run { elements, blocks }| {
                let pairs = dw[elements.clone()].iter_mut().zip(&shadow[elements]);
                match blocks {
                    Blocks::One(at) => {
                        self.with_blocks(pairs, &scales, Blocks::One(at), |(d, w), block| {
                            let (code, passes) = of(*w, block);
                            own[at] += *d * code;
                            *d *= passes;
                        });
                    }
                    Blocks::Each(range) => {
                        let pairs = pairs.zip(&mut own[range.clone()]);
                        let blocks = Blocks::Each(range);
                        self.with_blocks(pairs, &scales, blocks, |((d, w), sum), block| {
                            let (code, passes) = of(*w, block);
                            *sum += *d * code;
                            *d *= passes;
                        });
                    }
                }
            });
            for ((sum, own), scale) in sums.iter_mut().zip(&own).zip(&scales) {
                *sum += own * scale;
            }
        });
    }

    /// What is written: the integers and scales of the last forward pass.
    pub fn matrix(&self, theta: &[f32], shadow: Option<&[f32]>) -> QMatrix {
        let QShape { n, k, .. } = self.shape;
        let (scales, blocks) = (self.scales(theta), self.shape.blocks());
        let mut codes = self.codes.clone();
        if let Some(shadow) = shadow {
            self.each_run(|Run { elements, blocks }| {
                let pairs = codes[elements.clone()].iter_mut().zip(&shadow[elements]);
                self.with_blocks(pairs, &scales, blocks, |(code, w), block| {
                    *code = self.code(*w, block) as u8;
                });
            });
        }
        let zeros = self.layout.matrix(self.zeros.clone(), [n, blocks]);
        let scales = self.layout.matrix(scales, [n, blocks]);
        QMatrix::plain(self.shape, self.layout.matrix(codes, [n, k]), scales, zeros)
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

    const LAYOUTS: [Layout; 2] = [Layout::ByRow, Layout::ByColumn];

    fn example(scale: DType, layout: Layout) -> Quantized {
        let zero_points = ZeroPoints::Asymmetric;
        let shape = QShape { n: 2, k: 5, block: 3, bits: 2, zero_points, scale, superblock: None };
        let matrix = QMatrix::plain(
            shape,
            Array2::from_shape_vec((2, 5), vec![0, 1, 2, 3, 0, 3, 2, 1, 0, 2]).unwrap(),
            Array2::from_shape_vec((2, 2), vec![0.5, 0.25, 0.1, -1.0]).unwrap(),
            Array2::from_shape_vec((2, 2), vec![1, 0, 2, 3]).unwrap(),
        );
        Quantized::new(&matrix, layout)
    }

    #[test]
    fn what_is_written_is_what_was_computed() {
        let theta = [0.1, -0.2, 0.3, 0.0];
        let shadow: Vec<f32> = (0..10).map(|it| it as f32 * 0.17 - 0.8).collect();
        for layout in LAYOUTS {
            let q = example(DType::F16, layout);
            for shadow in [None, Some(&shadow[..])] {
                let written = q.matrix(&theta, shadow).dequantize();
                assert_eq!(layout.of(&written), q.weight(&theta, shadow));
            }
        }
    }

    #[test]
    fn layouts_say_the_same() {
        let [by_row, by_column] = LAYOUTS.map(|it| example(DType::F32, it));
        assert_eq!(by_row.matrix(&[0.0; 4], None), by_column.matrix(&[0.0; 4], None));
        let (theta, turned) = ([0.1, -0.2, 0.3, 0.0], [0.1, 0.3, -0.2, 0.0]);
        let dw = [0.3f32, -1.0, 0.5, 2.0, -0.4, 0.1, 0.7, -0.6, 1.1, 0.2];
        let shadow = [9.0f32, 0.1, -9.0, 0.3, 0.2, 0.0, 0.1, 0.05, 1.0, 1.0];
        let flipped = |it: &[f32]| transposed(it, 2, 5);
        let mut sums = [[0.0f32; 4]; 2];
        by_row.reduce(&theta, &dw, &mut sums[0]);
        by_column.reduce(&turned, &flipped(&dw), &mut sums[1]);
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        for (at, there) in [0, 2, 1, 3].into_iter().enumerate() {
            near(sums[0][at], sums[1][there]);
        }
        let mut sums = [[0.0f32; 4]; 2];
        let (mut of_row, mut of_column) = (dw, flipped(&dw));
        by_row.reduce_through(&theta, &shadow, &mut of_row, &mut sums[0]);
        by_column.reduce_through(&turned, &flipped(&shadow), &mut of_column, &mut sums[1]);
        assert_eq!(flipped(&of_row), of_column);
        for (at, there) in [0, 2, 1, 3].into_iter().enumerate() {
            near(sums[0][at], sums[1][there]);
        }
    }

    #[test]
    fn gradients_of_scales_are_differences() {
        let dw = [0.3f32, -1.0, 0.5, 2.0, -0.4, 0.1, 0.7, -0.6, 1.1, 0.2];
        for q in LAYOUTS.map(|it| example(DType::F32, it)) {
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
    }

    #[test]
    fn what_is_clamped_has_no_gradient_of_its_own() {
        let q = example(DType::F32, Layout::ByRow);
        let mut dw = [1.0f32; 10];
        let (mut sums, shadow) =
            ([0.0; 4], [9.0f32, 0.1, -9.0, 0.3, 0.2, 0.0, 0.1, 0.05, 1.0, 1.0]);
        q.reduce_through(&[0.0; 4], &shadow, &mut dw, &mut sums);
        assert_eq!(dw[..5], [0.0, 1.0, 0.0, 1.0, 1.0]);
        // 2, 0 and −1 steps, by the scale of 0.5.
        assert!((sums[0] - 0.5 * (2.0 - 1.0)).abs() < 1e-6, "{}", sums[0]);
    }
}
