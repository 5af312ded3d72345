//! Blocks with a minimum on a grid with integer zero points, for inputs that their blocks' sums follow.
//!
//! A weight of a block is `d·q + m`. With an integer zero point `z` that is `d·(q - z)`, and
//! `r = d·z + m` is left of the minimum: `x·w` is the sum of `x·d·(q - z)` and, for each block, of its
//! inputs' sum times `r`. Where zero points reach, `r` is half of `d` at most, and is stored as integers
//! of the same bits with one scale for the row: in 8 bits as one digit, in 4 bits as two.

use onnxq_ir::tensor::{DType, Inputs, QMatrix, QShape};

use super::integers::Parts;

/// Digits of what is left of a minimum.
fn digits(bits: u32) -> usize {
    if bits == 8 { 1 } else { 2 }
}

/// The grid of the matrix with the weights of the sums.
pub(super) fn grid(grid: QShape) -> QShape {
    QShape { k: grid.k + digits(grid.bits) * (grid.k / grid.block), ..grid }
}

/// The inputs that it is for.
pub(super) fn inputs(grid: QShape) -> Inputs {
    Inputs::Summed { block: grid.block, digits: digits(grid.bits), radix: 1 << grid.bits }
}

/// The rows of a matrix: integers and zero points of blocks, then those of their sums.
pub(super) fn matrix(shape: QShape, parts: &Parts) -> QMatrix {
    let blocks = parts.scales.len() / shape.n.max(1);
    let mut out = Columns::default();
    for row in 0..shape.n {
        let own = row * blocks..(row + 1) * blocks;
        let (scales, minimums) = (&parts.scales[own.clone()], &parts.minimums[own.clone()]);
        let codes = &parts.codes[own.start * shape.block..own.end * shape.block];
        let zeros = codes.chunks_exact(shape.block).zip(scales.iter().zip(minimums));
        let zeros = zeros.map(|(codes, (d, m))| Zero::of(shape.bits, codes, *d, *m));
        let zeros: Vec<Zero> = zeros.collect();
        for (codes, zero) in codes.chunks_exact(shape.block).zip(&zeros) {
            out.codes.extend(codes.iter().map(|it| it + zero.raised));
        }
        out.scales.extend(scales);
        out.zeros.extend(zeros.iter().map(|it| it.point));
        out.sums(shape, &zeros);
    }
    QMatrix::new(shape, out.codes, out.scales, Some(out.zeros))
}

/// Where zero lies in a block.
struct Zero {
    point: u8,
    /// What all integers of the block are raised by, where there is room.
    raised: u8,
    /// What is left of the minimum.
    rest: f32,
}

impl Zero {
    fn of(bits: u32, codes: &[u8], scale: f32, minimum: f32) -> Zero {
        let largest = ((1u32 << bits) - 1) as f32;
        // A scale of zero, or beyond floats, has no zero point.
        let wanted = (-minimum / scale).round();
        let wanted = if wanted.is_finite() { wanted } else { 0.0 };
        let room = largest - f32::from(codes.iter().copied().max().unwrap_or(0));
        let raised = (-wanted).clamp(0.0, room);
        let point = (wanted + raised).clamp(0.0, largest);
        let rest = scale * (point - raised) + minimum;
        Zero { point: point as u8, raised: raised as u8, rest }
    }
}

#[derive(Default)]
struct Columns {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
}

impl Columns {
    /// What is left of the minimums of a row, as digits with one scale.
    fn sums(&mut self, shape: QShape, zeros: &[Zero]) {
        let middle = f32::from(shape.middle());
        let largest = zeros.iter().fold(0f32, |largest, it| largest.max(it.rest.abs()));
        let scale = largest / (middle - 1.0);
        let scale =
            if shape.scale == DType::F16 { half::f16::from_f32(scale).to_f32() } else { scale };
        let digit = |value: f32| {
            let integer = if scale > 0.0 { (value / scale).round() } else { 0.0 };
            integer.clamp(-middle, middle - 1.0)
        };
        let mut left: Vec<f32> = zeros.iter().map(|it| it.rest).collect();
        for _ in 0..digits(shape.bits) {
            for value in &mut left {
                let integer = digit(*value);
                self.codes.push((integer + middle) as u8);
                *value = (*value - integer * scale) * (2.0 * middle);
            }
        }
        let blocks = shape.blocks() - zeros.len();
        self.scales.extend(std::iter::repeat_n(scale, blocks));
        self.zeros.extend(std::iter::repeat_n(shape.middle(), blocks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgmlType, integers::origin, types::Decode};
    use bytes::Bytes;
    use onnxq_ir::tensor::ZeroPoints;
    use proptest::prelude::*;

    const TYPES: [GgmlType; 5] =
        [GgmlType::Q4_1, GgmlType::Q5_1, GgmlType::Q2K, GgmlType::Q4K, GgmlType::Q5K];

    /// A row of 512 elements whose halves are such scales and minimums.
    fn row(kind: GgmlType, steps: [f32; 2], seed: u64) -> Bytes {
        let next =
            |at: usize| (seed.wrapping_add(at as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let size = kind.bytes();
        let mut bytes: Vec<u8> =
            (0..512 / kind.elements() * size).map(|at| next(at) as u8).collect();
        let at = if kind == GgmlType::Q2K { 80 } else { 0 };
        for block in bytes.chunks_exact_mut(size) {
            for (i, step) in steps.iter().enumerate() {
                block[at + 2 * i..][..2].copy_from_slice(&half::f16::from_f32(*step).to_le_bytes());
            }
        }
        bytes.into()
    }

    fn values(kind: GgmlType, bytes: &[u8]) -> Vec<f32> {
        let Decode::Blocks(decode) = kind.decode() else { panic!("{kind}") };
        let mut out = vec![0.0; 512];
        let blocks = bytes.chunks_exact(kind.bytes());
        blocks.zip(out.chunks_exact_mut(kind.elements())).for_each(|(from, to)| decode(from, to));
        out
    }

    proptest! {
        /// Each block's weights and its share of the sums are what the file says, up to a part of the
        /// largest rest of the row.
        #[test]
        fn weights_and_sums_are_the_weights_of_the_file(
            which in 0..TYPES.len(),
            scale in -2f32..2.0,
            minimum in -9f32..9.0,
            seed in any::<u64>(),
        ) {
            let kind = TYPES[which];
            let bytes = row(kind, [scale, minimum], seed);
            let arranged = origin(kind, 512, &bytes).unwrap().arranged.unwrap();
            let Inputs::Summed { block, digits, radix } = arranged.inputs else { panic!() };
            let matrix = arranged.integers.solve(0..1).unwrap();
            prop_assert_eq!(matrix.shape, arranged.integers.shape());
            prop_assert!(matrix.quantized.iter().all(|it| u32::from(*it) < radix));
            let made = matrix.dequantize();
            let blocks = 512 / block;
            let part = |digit: usize, at: usize| {
                made[(0, 512 + digit * blocks + at)] / (radix as f32).powi(digit as i32)
            };
            let rest = |at: usize| (0..digits).map(|digit| part(digit, at)).sum::<f32>();
            let largest = (0..blocks).fold(0f32, |most, at| most.max(rest(at).abs()));
            // The second digit reaches seven steps where half of a first one may be eight.
            let finest = if digits == 1 { 250.0 } else { 110.0 };
            for (i, value) in values(kind, &bytes).into_iter().enumerate() {
                let own = made[(0, i)] + rest(i / block);
                let bound = largest / finest + 1e-3 * value.abs().max(made[(0, i)].abs()) + 1e-6;
                prop_assert!((own - value).abs() <= bound, "{kind} {i}: {own}, not {value}");
            }
        }
    }

    #[test]
    fn zero_points_within_reach_leave_half_a_step() {
        let zero = Zero::of(4, &[0, 15], 0.5, -3.3);
        assert_eq!((zero.point, zero.raised), (7, 0));
        assert!((zero.rest - 0.2).abs() < 1e-6);
        // Positive weights of five bits are raised above a zero point of zero.
        let zero = Zero::of(8, &[0, 31], 0.5, 3.0);
        assert_eq!((zero.point, zero.raised, zero.rest), (0, 6, 0.0));
        // In four bits there is no room.
        let zero = Zero::of(4, &[0, 15], 0.5, 3.0);
        assert_eq!((zero.point, zero.raised, zero.rest), (0, 0, 3.0));
        let zero = Zero::of(4, &[3], 0.0, 1.5);
        assert_eq!((zero.point, zero.rest), (0, 1.5));
    }

    #[test]
    fn the_nearest_grid_is_about_as_large() {
        let bytes = row(GgmlType::Q4_1, [1.0, 0.0], 1);
        let near = origin(GgmlType::Q4_1, 512, &bytes).unwrap();
        assert!(near.integers.is_none());
        assert_eq!((near.grid.k, near.grid.block, near.grid.bits), (512, 16, 4));
        let near = origin(GgmlType::Q5K, 512, &row(GgmlType::Q5K, [1.0, 0.0], 1)).unwrap().grid;
        assert_eq!((near.block, near.bits, near.zero_points), (32, 8, ZeroPoints::Symmetric));
    }
}
