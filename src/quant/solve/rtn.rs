//! Round to nearest: the range of each block, cut into equal steps.
//!
//! With [`Range::Full`] the bytes equal those of ONNX Runtime's `MatMulNBitsQuantizer`
//! (1.31, default algorithm), bit for bit: golden data in `fixtures/golden`.

use half::f16;
use ndarray::{Array2, ArrayView2, Axis};

use super::Solver;
use crate::{
    quant::scheme::{Range, Scheme},
    tensor::{DType, QMatrix, QShape, Zeros},
};

pub struct Rtn;

impl Solver for Rtn {
    fn solve(&self, rows: ArrayView2<f32>, scheme: &Scheme, extent: QShape) -> QMatrix {
        let (n, groups) = (rows.nrows(), extent.blocks());
        let shape = QShape { n, ..extent };
        let mut codes = Array2::zeros((n, extent.k));
        let mut scales = Array2::zeros((n, groups));
        let mut zeros = Array2::zeros((n, groups));
        let lines = codes.axis_iter_mut(Axis(0)).zip(rows.axis_iter(Axis(0)));
        for (row, (mut codes, values)) in lines.enumerate() {
            let values = values.to_slice().expect("rows are contiguous");
            let codes = codes.as_slice_mut().expect("rows are contiguous");
            let blocks = values.chunks(extent.block).zip(codes.chunks_mut(extent.block));
            for (group, (values, codes)) in blocks.enumerate() {
                let grid = grid(values, scheme, extent.scale);
                grid.round(values, codes);
                scales[(row, group)] = grid.scale;
                zeros[(row, group)] = grid.zero as u8;
            }
        }
        QMatrix { shape, codes, scales, zeros }
    }
}

/// A block's scale and zero, and which codes it may use.
struct Grid {
    scale: f32,
    zero: f32,
    low: f32,
    high: f32,
    ties: Ties,
}

/// How a value halfway between two codes is rounded.
#[derive(Clone, Copy, PartialEq)]
enum Ties {
    /// Up, as `trunc(x + 0.49999997)` of a positive `x`: MatMulNBits' quantizer.
    Up,
    Even,
}

fn grid(values: &[f32], scheme: &Scheme, stored: DType) -> Grid {
    let (low, high) = extremes(values);
    let middle = (1u32 << (scheme.bits - 1)) as f32;
    let grid = match (scheme.zeros, scheme.range) {
        (Zeros::Symmetric, Range::Full) => {
            let extreme = if high.abs() > low.abs() { high } else { low };
            let (scale, ties) = (extreme / -middle, Ties::Up);
            Grid { scale, zero: middle, low: 0.0, high: scheme.max_code(), ties }
        }
        (Zeros::Symmetric, range) => {
            let reach = if range == Range::Narrow { middle - 1.0 } else { middle / 2.0 };
            let scale = high.max(-low) / reach;
            let (low, high) = (middle - reach, middle + reach);
            Grid { scale, zero: middle, low, high, ties: Ties::Even }
        }
        (Zeros::Asymmetric, range) => {
            let high_code = if range == Range::Reduced { middle } else { scheme.max_code() };
            let (low, high) = (low.min(0.0), high.max(0.0));
            // Halves first: the difference of two large floats may not be one.
            let scale = (high / high_code) - (low / high_code);
            let exact = (high - low) / high_code;
            let scale = if exact.is_finite() { exact } else { scale };
            Grid { scale, zero: 0.0, low: 0.0, high: high_code, ties: Ties::Up }
        }
    };
    finish(grid, low, scheme, stored)
}

/// Places zero, by the exact scale, and rounds the scale to its stored type before anything is
/// divided by it.
fn finish(mut grid: Grid, low: f32, scheme: &Scheme, stored: DType) -> Grid {
    if scheme.zeros == Zeros::Asymmetric && grid.scale != 0.0 {
        // Half away from zero, and clamped: a block that does not reach zero still holds it.
        let zero = (-low.min(0.0) / grid.scale).round();
        grid.zero = zero.clamp(grid.low, grid.high);
    }
    if stored == DType::F16 {
        grid.scale = f16::from_f32(grid.scale).to_f32();
    }
    grid
}

impl Grid {
    fn round(&self, values: &[f32], codes: &mut [u8]) {
        let inverse = if self.scale == 0.0 { 0.0 } else { self.scale.recip() };
        if !inverse.is_finite() {
            // So small that no float is its inverse: it is zero for all that follows.
            codes.fill(self.zero as u8);
            return;
        }
        let (zero, low, high) = (self.zero, self.low, self.high);
        match self.ties {
            Ties::Up => {
                for (code, value) in codes.iter_mut().zip(values) {
                    let at = (value * inverse + zero).clamp(low, high);
                    *code = (at + 0.499_999_97) as u8;
                }
            }
            Ties::Even => {
                // Adding 1.5 · 2^23 leaves no bits below one: the sum is rounded, ties to even.
                const ROUND: f32 = 12_582_912.0;
                for (code, value) in codes.iter_mut().zip(values) {
                    let at = (value * inverse + ROUND) - ROUND + zero;
                    *code = at.clamp(low, high) as u8;
                }
            }
        }
    }
}

fn extremes(values: &[f32]) -> (f32, f32) {
    // Eight lanes, so that the compiler keeps them in a register.
    let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..8 {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    let all_low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    let all_high = high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (all_low, all_high)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        calibrate::npz::Npz,
        quant::scheme::Granularity,
        tensor::{Packing, Part, Tensor},
    };

    /// `fixtures/generate/golden.py` says where the numbers come from.
    #[test]
    fn the_bytes_are_those_of_matmul_nbits_quantizer() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/matmul_nbits.npz");
        let mut golden = Npz::open(&path).unwrap();
        let mut array =
            |name: &str| -> Option<Tensor> { Some(golden.array(name).unwrap()?.whole().unwrap()) };
        for weight in ["normal", "ragged", "odd_blocks", "half", "odd"] {
            for (bits, block) in [(4, 32), (4, 128), (8, 32), (8, 128)] {
                for zeros in [Zeros::Symmetric, Zeros::Asymmetric] {
                    let kind = if zeros == Zeros::Symmetric { "sym" } else { "asym" };
                    let case = format!("{weight}_{bits}_{block}_{kind}");
                    let weight = array(&format!("{case}/weight")).unwrap();
                    let rows = weight.transposed();
                    let granularity = Granularity::Block(block);
                    let scheme = Scheme { bits, zeros, granularity, range: Range::Full };
                    let (n, k) = (rows.shape[0], rows.shape[1]);
                    let extent = scheme.extent(n, k, weight.dtype);
                    let values = rows.rows_f32(0..n).unwrap();
                    let view = ArrayView2::from_shape((n, k), &values).unwrap();
                    let q = Rtn.solve(view, &scheme, extent);
                    let parts =
                        [("codes", Part::Codes), ("scales", Part::Scales), ("zeros", Part::Zeros)];
                    for (name, part) in parts {
                        let Some(expected) = array(&format!("{case}/{name}")) else {
                            assert_eq!((name, zeros), ("zeros", Zeros::Symmetric));
                            continue;
                        };
                        let actual = Packing::NBits.pack(&q, part);
                        assert!(actual == expected.bytes().unwrap(), "{case}/{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_of_denormals_is_zero_and_not_nan() {
        let scheme = Scheme {
            bits: 4,
            zeros: Zeros::Symmetric,
            granularity: Granularity::Block(16),
            range: Range::Full,
        };
        let values = [1e-42f32, 0.0, -1e-43, 0.0].repeat(4);
        let view = ArrayView2::from_shape((1, 16), &values).unwrap();
        let q = Rtn.solve(view, &scheme, scheme.extent(1, 16, DType::F32));
        assert!(q.dequantize().iter().all(|it| it.abs() < 1e-40));
    }
}
