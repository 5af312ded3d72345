//! The bytes of rows whose integers, scales and minimums are known: the inverse of reading blocks.

use half::f16;
use onnxq_ir::tensor::QMatrix;

use super::legacy::Legacy;
use crate::gguf::GgmlType;

/// Elements of a block of the K types.
const ELEMENTS: usize = 256;

/// A block of a K type: integers of its elements, of the scales and minimums of its parts, and their
/// steps.
struct Block<'a> {
    codes: &'a [u8],
    scales: Vec<i32>,
    minimums: Vec<i32>,
    steps: [f16; 2],
}

impl GgmlType {
    /// The blocks of some rows; `None` of a type whose blocks are made otherwise.
    ///
    /// # Panics
    /// If the rows are quantized in another way than the type says.
    pub fn pack(self, rows: &QMatrix) -> Option<Vec<u8>> {
        if let Some(format) = self.legacy() {
            assert_eq!((rows.shape.bits, rows.shape.minimums() > 0), (format.bits, format.has_min));
            let halves =
                |it: &ndarray::Array2<f32>| it.iter().copied().map(f16::from_f32).collect();
            let codes = rows.quantized.iter().copied().collect();
            let parts =
                Legacy { codes, scales: halves(&rows.scales), mins: halves(&rows.minimums) };
            return Some(format.pack(&parts));
        }
        let pack: fn(&Block, &mut Vec<u8>) = match self {
            GgmlType::Q2K => q2,
            GgmlType::Q3K => q3,
            GgmlType::Q4K => q4,
            GgmlType::Q5K => q5,
            GgmlType::Q6K => q6,
            _ => return None,
        };
        let mut out = Vec::with_capacity(rows.quantized.len() / ELEMENTS * self.bytes());
        each_block(rows, |block| pack(&block, &mut out));
        Some(out)
    }
}

fn each_block(rows: &QMatrix, mut visit: impl FnMut(Block)) {
    let (shape, parts) = (rows.shape, rows.shape.parts());
    let count = shape.superblock.expect("K types have superblocks").blocks;
    assert_eq!(count * shape.block, ELEMENTS, "a block of {ELEMENTS}");
    for row in 0..rows.quantized.nrows() {
        let codes = rows.quantized.row(row);
        let codes = codes.to_slice().expect("quantized values are row-major");
        for (at, codes) in codes.chunks_exact(ELEMENTS).enumerate() {
            let steps: Vec<f32> = (0..parts).map(|it| rows.steps[(row, at * parts + it)]).collect();
            let own = at * count..(at + 1) * count;
            let units = |value: f32, step: f32| match step {
                0.0 => 0,
                step => (value / step).round() as i32,
            };
            let scales = own.clone().map(|it| units(rows.scales[(row, it)], steps[0])).collect();
            let minimums = match parts {
                2 => own.map(|it| units(-rows.minimums[(row, it)], steps[1])).collect(),
                _ => Vec::new(),
            };
            let second = steps.get(1).copied().unwrap_or_default();
            let steps = [steps[0], second].map(f16::from_f32);
            visit(Block { codes, scales, minimums, steps });
        }
    }
}

fn q2(block: &Block, out: &mut Vec<u8>) {
    out.extend(block.scales.iter().zip(&block.minimums).map(|(s, m)| (s | m << 4) as u8));
    out.extend(two_bits(block.codes.iter().copied()));
    out.extend(block.steps.iter().flat_map(|it| it.to_le_bytes()));
}

fn q3(block: &Block, out: &mut Vec<u8>) {
    out.extend(one_bit(block.codes.iter().map(|it| it >> 2)));
    out.extend(two_bits(block.codes.iter().map(|it| it & 3)));
    let mut scales = [0u8; 12];
    for (i, scale) in block.scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        scales[i % 8] |= (scale & 15) << (i / 8 * 4);
        scales[8 + i % 4] |= (scale >> 4) << (i / 4 * 2);
    }
    out.extend(scales);
    out.extend(block.steps[0].to_le_bytes());
}

fn q4(block: &Block, out: &mut Vec<u8>) {
    with_minimums(block, out);
    out.extend(four_bits(block.codes.iter().copied(), 32));
}

fn q5(block: &Block, out: &mut Vec<u8>) {
    with_minimums(block, out);
    out.extend(one_bit(block.codes.iter().map(|it| it >> 4)));
    out.extend(four_bits(block.codes.iter().map(|it| it & 15), 32));
}

fn q6(block: &Block, out: &mut Vec<u8>) {
    out.extend(four_bits(block.codes.iter().map(|it| it & 15), 64));
    out.extend(two_bits(block.codes.iter().map(|it| it >> 4)));
    out.extend(block.scales.iter().map(|it| *it as i8 as u8));
    out.extend(block.steps[0].to_le_bytes());
}

/// Steps, and six bits of each scale and minimum in 12 bytes: of the last four parts the high two bits
/// stand above those of the first four.
fn with_minimums(Block { scales, minimums, steps, .. }: &Block, out: &mut Vec<u8>) {
    out.extend(steps.iter().flat_map(|it| it.to_le_bytes()));
    for list in [scales, minimums] {
        out.extend((0..4).map(|it| (list[it] | (list[it + 4] >> 4) << 6) as u8));
    }
    out.extend((4..8).map(|it| (scales[it] & 15 | (minimums[it] & 15) << 4) as u8));
}

/// The element `i` in bit `i / 32` of byte `i % 32`.
fn one_bit(codes: impl Iterator<Item = u8>) -> [u8; 32] {
    let mut out = [0; 32];
    codes.enumerate().for_each(|(i, code)| out[i % 32] |= (code & 1) << (i / 32));
    out
}

/// As [`super::two_bits`] reads them.
fn two_bits(codes: impl Iterator<Item = u8>) -> [u8; 64] {
    let mut out = [0; 64];
    codes.enumerate().for_each(|(i, code)| {
        out[i / 128 * 32 + i % 32] |= (code & 3) << (i / 32 % 4 * 2);
    });
    out
}

/// As [`super::four_bits`] reads them.
fn four_bits(codes: impl Iterator<Item = u8>, run: usize) -> [u8; 128] {
    let mut out = [0; 128];
    codes.enumerate().for_each(|(i, code)| {
        out[i / (2 * run) * run + i % run] |= code << (i / run % 2 * 4);
    });
    out
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use onnxq_ir::tensor::{DType, QShape, Superblock, ZeroPoints};
    use proptest::prelude::*;

    use super::*;
    use crate::gguf::Decode;

    /// How the blocks of a type are cut, as QMatrix has it.
    fn shape(kind: GgmlType) -> QShape {
        let (bits, block, zero_points, nested) = match kind {
            GgmlType::Q2K => (2, 16, ZeroPoints::Minimum, (16, 4)),
            GgmlType::Q3K => (3, 16, ZeroPoints::Symmetric, (16, 6)),
            GgmlType::Q4K => (4, 32, ZeroPoints::Minimum, (8, 6)),
            GgmlType::Q5K => (5, 32, ZeroPoints::Minimum, (8, 6)),
            GgmlType::Q6K => (6, 16, ZeroPoints::Symmetric, (16, 8)),
            GgmlType::Q4_1 => (4, 32, ZeroPoints::Minimum, (0, 0)),
            GgmlType::Q5_0 => (5, 32, ZeroPoints::Symmetric, (0, 0)),
            _ => (8, 32, ZeroPoints::Symmetric, (0, 0)),
        };
        let superblock = (nested.0 > 0).then_some(Superblock { blocks: nested.0, bits: nested.1 });
        QShape { n: 2, k: 512, block, bits, zero_points, scale: DType::F16, superblock }
    }

    /// Any matrix of a shape, and steps that are powers of two and others.
    fn matrix(shape: QShape, noise: &[u32]) -> QMatrix {
        let at = |seed: usize, row: usize, column: usize| {
            noise[(seed + row * 7919 + column * 31) % noise.len()]
        };
        let mut q = QMatrix::zeros(shape, 2);
        let codes = |it: (usize, usize)| (at(1, it.0, it.1) % (1 << shape.bits)) as u8;
        q.quantized = Array2::from_shape_fn((2, 512), codes);
        q.zero_points.fill(1 << (shape.bits - 1));
        let half = |it: f32| f16::from_f32(it).to_f32();
        let step = |it: (usize, usize)| half((at(2, it.0, it.1) % 1000) as f32 * 1e-4 + 1e-4);
        q.steps = Array2::from_shape_fn((2, shape.steps()), step);
        let Some(superblock) = shape.superblock else {
            q.scales = Array2::from_shape_fn(q.scales.dim(), step);
            q.minimums = Array2::from_shape_fn(q.minimums.dim(), |it| -step(it));
            return q;
        };
        let (low, high) = superblock.scales(shape.zero_points);
        let integer = |seed, it: (usize, usize)| {
            (low + (at(seed, it.0, it.1) % (high - low + 1) as u32) as i32) as f32
        };
        let part = |column: usize| column / superblock.blocks * shape.parts();
        let steps = q.steps.clone();
        q.scales =
            Array2::from_shape_fn(q.scales.dim(), |it| integer(3, it) * steps[(it.0, part(it.1))]);
        q.minimums = Array2::from_shape_fn(q.minimums.dim(), |it| {
            -(integer(4, it) * steps[(it.0, part(it.1) + 1)])
        });
        q
    }

    proptest! {
        /// Blocks say what the matrix says, bit for bit.
        #[test]
        fn what_is_packed_is_read_as_the_same(noise in prop::collection::vec(any::<u32>(), 997)) {
            use GgmlType::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5K, Q6K, Q8_0};
            for kind in [Q2K, Q3K, Q4K, Q5K, Q6K, Q4_1, Q5_0, Q8_0] {
                let q = matrix(shape(kind), &noise);
                let bytes = kind.pack(&q).unwrap();
                let Decode::Blocks(read) = kind.decode() else { unreachable!() };
                let mut back = vec![0.0; 1024];
                let blocks = bytes.chunks_exact(kind.bytes());
                prop_assert_eq!(blocks.len() * kind.elements(), 1024);
                blocks.zip(back.chunks_exact_mut(kind.elements())).for_each(|it| read(it.0, it.1));
                let expected: Vec<f32> = q.dequantize().iter().copied().collect();
                prop_assert_eq!(back, expected, "{}", kind);
            }
            prop_assert!(GgmlType::Iq4Nl.pack(&matrix(shape(Q4_0), &noise)).is_none());
        }
    }
}
