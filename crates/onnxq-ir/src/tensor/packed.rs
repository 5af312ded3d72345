//! Quantized weights: one canonical form in memory, one packing per consumer.

use std::ops::Range;

use bytes::Bytes;
use ndarray::{Array2, ArrayView2, Axis};

use super::{DType, TensorError, from_f32};

/// Rows of a quantized `[n, k]` matrix: a row is an output channel, `k` is summed over.
///
/// Quantized values are unsigned, so a signed storage type is a matter of packing. Scales and zeros
/// are `[n, blocks]`; a value is `(integer - zero) * scale`, or `integer * scale + minimum` where
/// blocks have one.
#[derive(Clone, Debug, PartialEq)]
pub struct QMatrix {
    pub shape: QShape,
    pub quantized: Array2<u8>,
    pub scales: Array2<f32>,
    pub zero_points: Array2<u8>,
    /// `[n, blocks]` of [`ZeroPoints::Minimum`]; of all others `[n, 0]`.
    pub minimums: Array2<f32>,
    /// What the integers of superblocks are multiplied by, `[n, superblocks * parts]`: of scales, and of
    /// minimums if there are any. Without superblocks `[n, 0]`.
    pub steps: Array2<f32>,
}

/// The extent of a quantized weight. The last block of a row may be short.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct QShape {
    pub n: usize,
    pub k: usize,
    pub block: usize,
    pub bits: u32,
    pub zero_points: ZeroPoints,
    /// Element type of the stored scales: the weight's own, as ONNX Runtime wants it.
    pub scale: DType,
    pub superblock: Option<Superblock>,
}

/// Blocks whose scales, and minimums, are integers times a step that all of them share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Superblock {
    pub blocks: usize,
    /// Of such an integer.
    pub bits: u32,
}

/// Where zero lies among the quantized values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ZeroPoints {
    /// In the middle, `2^(bits - 1)`, for every block; not stored unless the format needs it.
    Symmetric,
    /// A quantized value of its own for each block.
    Asymmetric,
    /// Nowhere: each block has a float that is added to all of its values, as ggml's types have it.
    Minimum,
}

impl QShape {
    pub fn blocks(&self) -> usize {
        self.k.div_ceil(self.block).max(1)
    }

    pub fn middle(&self) -> u8 {
        1 << (self.bits - 1)
    }

    /// How many superblocks a row has; none if scales are floats by themselves.
    pub fn superblocks(&self) -> usize {
        self.superblock.map_or(0, |it| self.blocks().div_ceil(it.blocks))
    }

    /// Minimums that a row has.
    pub fn minimums(&self) -> usize {
        if self.zero_points == ZeroPoints::Minimum { self.blocks() } else { 0 }
    }

    /// Steps of a superblock.
    pub fn parts(&self) -> usize {
        if self.zero_points == ZeroPoints::Minimum { 2 } else { 1 }
    }

    /// Steps that a row has.
    pub fn steps(&self) -> usize {
        self.superblocks() * self.parts()
    }
}

impl Superblock {
    /// The integers that scales may be: signed where there are no minimums.
    pub fn scales(self, zero_points: ZeroPoints) -> (i32, i32) {
        match zero_points {
            ZeroPoints::Minimum => (0, (1 << self.bits) - 1),
            _ => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
        }
    }
}

/// Which of the tensors that make up a quantized weight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    Quantized,
    Scales,
    ZeroPoints,
}

/// How a consumer wants the parts laid out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Packing {
    /// `DequantizeLinear` before `MatMul(x, w)`: unsigned integers `[k, n]`, scales `[blocks, n]`.
    Blocked,
    /// `DequantizeLinear` before `Gather(w, i)`: unsigned integers `[n, k]`, scales `[n, blocks]`.
    BlockedRows,
    /// `com.microsoft.GatherBlockQuantized`: rows of `k` quantized values, padded to whole bytes.
    Gather,
    /// `MatMulInteger` and per-channel `DequantizeLinear`: signed integers `[k, n]`, scales `[n]`.
    PerChannel,
    /// Per-channel `DequantizeLinear` along axis 0: signed integers `[n, k]`, which convolutions
    /// see in their own shape, scales `[n]`.
    PerRow,
    /// So many matrices `d`, the directions of `com.microsoft.DynamicQuantizeLSTM` or the slices of a
    /// product: signed integers `[d, k, n / d]`, scales and zero points `[d, n / d]`.
    PerSlice(usize),
    /// `com.microsoft.MatMulNBits`: quantized values `[n, blocks, block * bits / 8]`.
    NBits,
}

/// Something that yields rows of a quantized matrix when their bytes are needed.
pub trait QSource: Send + Sync {
    fn shape(&self) -> QShape;
    /// Rows must not influence each other, so any split of them gives the same bytes.
    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError>;
}

impl Packing {
    /// Element type and shape of a stored part.
    pub fn layout(self, q: QShape, part: Part) -> (DType, Vec<usize>) {
        let QShape { n, k, block, bits, scale, .. } = q;
        let (groups, per_byte) = (q.blocks(), 8 / bits as usize);
        let unsigned = match bits {
            2 => DType::U2,
            4 => DType::U4,
            _ => DType::U8,
        };
        match (self, part) {
            (Packing::Blocked, Part::Quantized) => (unsigned, vec![k, n]),
            (Packing::Blocked, Part::Scales) => (scale, vec![groups, n]),
            (Packing::Blocked, Part::ZeroPoints) => (unsigned, vec![groups, n]),
            (Packing::BlockedRows, Part::Quantized) => (unsigned, vec![n, k]),
            (Packing::BlockedRows, Part::ZeroPoints) => (unsigned, vec![n, groups]),
            (Packing::Gather, Part::Quantized) => (DType::U8, vec![n, k.div_ceil(per_byte)]),
            (Packing::Gather | Packing::NBits, Part::ZeroPoints) => {
                (DType::U8, vec![n, groups.div_ceil(per_byte)])
            }
            (Packing::PerChannel, Part::Quantized) => (DType::I8, vec![k, n]),
            (Packing::PerRow, Part::Quantized) => (DType::I8, vec![n, k]),
            (Packing::PerChannel | Packing::PerRow, Part::Scales) => (scale, vec![n]),
            (Packing::PerChannel | Packing::PerRow, Part::ZeroPoints) => (DType::I8, vec![n]),
            (Packing::PerSlice(d), Part::Quantized) => (DType::I8, vec![d, k, n / d]),
            (Packing::PerSlice(d), Part::Scales) => (scale, vec![d, n / d]),
            (Packing::PerSlice(d), Part::ZeroPoints) => (DType::I8, vec![d, n / d]),
            (Packing::NBits, Part::Quantized) => (DType::U8, vec![n, groups, block / per_byte]),
            (_, Part::Scales) => (scale, vec![n, groups]),
        }
    }

    /// The packing that stands for all those with the same bytes for this part.
    pub fn canonical(self, q: QShape, part: Part) -> Packing {
        match self {
            // Rows of whole blocks need no padding.
            Packing::Gather if part != Part::Quantized || q.k.is_multiple_of(q.block) => {
                Packing::NBits
            }
            _ => self,
        }
    }

    /// Whether the bytes of some rows are a slice of the bytes of all rows.
    pub fn is_by_row(self) -> bool {
        matches!(self, Packing::Gather | Packing::NBits | Packing::PerRow)
    }

    /// The bytes of a part of `q`, which may be some rows only if the packing is by row.
    pub fn pack(self, q: &QMatrix, part: Part) -> Bytes {
        let bits = q.shape.bits;
        match (self, part) {
            (Packing::Blocked, Part::Quantized) => pack_bits(q.quantized.t().iter().copied(), bits),
            (Packing::BlockedRows, Part::Quantized) => pack_bits(q.quantized.iter().copied(), bits),
            (Packing::Blocked, Part::ZeroPoints) => {
                pack_bits(q.zero_points.t().iter().copied(), bits)
            }
            (Packing::BlockedRows, Part::ZeroPoints) => {
                pack_bits(q.zero_points.iter().copied(), bits)
            }
            (Packing::Blocked, Part::Scales) => q.scale_bytes(q.scales.t()),
            (Packing::PerChannel, Part::Quantized) => q.signed(q.quantized.t()),
            (Packing::PerChannel, Part::ZeroPoints) => q.signed(q.zero_points.t()),
            (Packing::PerRow, Part::Quantized) => q.signed(q.quantized.view()),
            (Packing::PerRow | Packing::PerSlice(_), Part::ZeroPoints) => {
                q.signed(q.zero_points.view())
            }
            (Packing::PerSlice(d), Part::Quantized) => {
                let slices = q.quantized.axis_chunks_iter(Axis(0), (q.shape.n / d).max(1));
                let bytes: Vec<Bytes> = slices.map(|it| q.signed(it.t())).collect();
                bytes.concat().into()
            }
            (Packing::Gather, Part::Quantized) => pack_rows(q.quantized.view(), bits, q.shape.k, 0),
            (Packing::NBits, Part::Quantized) => {
                pack_rows(q.quantized.view(), bits, q.shape.blocks() * q.shape.block, 0)
            }
            (Packing::Gather | Packing::NBits, Part::ZeroPoints) => {
                // Nothing reads the quantized values after the last zero; ONNX Runtime's tool
                // writes these.
                let fill = if bits == 4 { 0x88 } else { 0 };
                pack_rows(q.zero_points.view(), bits, q.shape.blocks(), fill)
            }
            (_, Part::Scales) => q.scale_bytes(q.scales.view()),
        }
    }
}

impl QMatrix {
    /// All zeros: rows to be filled.
    pub fn zeros(shape: QShape, n: usize) -> QMatrix {
        QMatrix {
            shape: QShape { n, ..shape },
            quantized: Array2::zeros((n, shape.k)),
            scales: Array2::zeros((n, shape.blocks())),
            zero_points: Array2::zeros((n, shape.blocks())),
            minimums: Array2::zeros((n, shape.minimums())),
            steps: Array2::zeros((n, shape.steps())),
        }
    }

    /// One whose blocks have a scale and a zero point each, in a row for each row.
    pub fn plain(
        shape: QShape,
        quantized: Array2<u8>,
        scales: Array2<f32>,
        zero_points: Array2<u8>,
    ) -> QMatrix {
        let n = quantized.nrows();
        let none = Array2::zeros((n, 0));
        let shape = QShape { n, ..shape };
        QMatrix { shape, quantized, scales, zero_points, minimums: none.clone(), steps: none }
    }

    /// Some of its rows.
    pub fn rows(&self, rows: Range<usize>) -> QMatrix {
        let part = ndarray::s![rows.clone(), ..];
        QMatrix {
            shape: QShape { n: rows.len(), ..self.shape },
            quantized: self.quantized.slice(part).to_owned(),
            scales: self.scales.slice(part).to_owned(),
            zero_points: self.zero_points.slice(part).to_owned(),
            minimums: self.minimums.slice(part).to_owned(),
            steps: self.steps.slice(part).to_owned(),
        }
    }

    /// Rows below each other; `shape` says all but how many there are.
    ///
    /// # Panics
    /// If they are of different sizes.
    pub fn stacked(shape: QShape, parts: &[QMatrix]) -> QMatrix {
        match parts {
            [] => return QMatrix::zeros(shape, 0),
            [only] => return only.clone(),
            _ => {}
        }
        fn all<T: Clone>(parts: &[QMatrix], of: impl Fn(&QMatrix) -> &Array2<T>) -> Array2<T> {
            let views: Vec<_> = parts.iter().map(|it| of(it).view()).collect();
            ndarray::concatenate(Axis(0), &views).expect("rows of one size")
        }
        let quantized = all(parts, |it| &it.quantized);
        QMatrix {
            shape: QShape { n: quantized.nrows(), ..shape },
            quantized,
            scales: all(parts, |it| &it.scales),
            zero_points: all(parts, |it| &it.zero_points),
            minimums: all(parts, |it| &it.minimums),
            steps: all(parts, |it| &it.steps),
        }
    }

    pub fn dequantize(&self) -> Array2<f32> {
        let has_minimums = self.shape.zero_points == ZeroPoints::Minimum;
        Array2::from_shape_fn(self.quantized.dim(), |(row, column)| {
            let group = (row, column / self.shape.block);
            if has_minimums {
                let product = self.scales[group] * f32::from(self.quantized[(row, column)]);
                return product + self.minimums[group];
            }
            (f32::from(self.quantized[(row, column)]) - f32::from(self.zero_points[group]))
                * self.scales[group]
        })
    }

    fn scale_bytes(&self, scales: ArrayView2<f32>) -> Bytes {
        let values: Vec<f32> = scales.iter().copied().collect();
        from_f32(self.shape.scale, &values).expect("scales are stored as floats").into()
    }

    fn signed(&self, quantized: ArrayView2<u8>) -> Bytes {
        let middle = self.shape.middle();
        quantized.iter().map(|it| it.wrapping_sub(middle)).collect::<Vec<u8>>().into()
    }
}

/// Low bits first, as ONNX stores int4 and as MatMulNBits reads its blocks.
pub fn pack_bits(quantized: impl Iterator<Item = u8>, bits: u32) -> Bytes {
    if bits == 8 {
        return quantized.collect::<Vec<u8>>().into();
    }
    let per_byte = 8 / bits as usize;
    let mut bytes = Vec::with_capacity(quantized.size_hint().0.div_ceil(per_byte));
    for (i, integer) in quantized.enumerate() {
        let shift = (i % per_byte) as u32 * bits;
        match bytes.last_mut() {
            Some(last) if shift != 0 => *last |= integer << shift,
            _ => bytes.push(integer),
        }
    }
    bytes.into()
}

pub fn unpack_bits(bytes: &[u8], bits: u32, len: usize) -> Vec<u8> {
    let per_byte = 8 / bits as usize;
    let mask = ((1u32 << bits) - 1) as u8;
    (0..len).map(|i| bytes[i / per_byte] >> ((i % per_byte) as u32 * bits) & mask).collect()
}

/// Each row starts at a byte of its own and is padded to `width` quantized values with the bits of
/// `fill`.
fn pack_rows(quantized: ArrayView2<u8>, bits: u32, width: usize, fill: u8) -> Bytes {
    let row_bytes = (width * bits as usize).div_ceil(8);
    let mut out = vec![fill; quantized.nrows() * row_bytes];
    for (row, line) in quantized.outer_iter().zip(out.chunks_exact_mut(row_bytes.max(1))) {
        let row = row.as_slice().expect("quantized values are row-major");
        match bits {
            8 => line[..row.len()].copy_from_slice(row),
            4 => {
                let pairs = row.chunks_exact(2);
                if let [last] = *pairs.remainder() {
                    line[row.len() / 2] = last | (fill & 0xf0);
                }
                for (byte, pair) in line.iter_mut().zip(pairs) {
                    *byte = pair[0] | pair[1] << 4;
                }
            }
            _ => line[..(row.len() * bits as usize).div_ceil(8)]
                .copy_from_slice(&pack_bits(row.iter().copied(), bits)),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpack_undoes_pack(quantized in proptest::collection::vec(0u8..4, 0..99)) {
            for bits in [2, 4, 8] {
                let packed = pack_bits(quantized.iter().copied(), bits);
                prop_assert_eq!(packed.len(), (quantized.len() * bits as usize).div_ceil(8));
                prop_assert_eq!(unpack_bits(&packed, bits, quantized.len()), quantized.clone());
            }
        }

        #[test]
        fn rows_start_at_bytes(columns in 1usize..9, bits in prop::sample::select(vec![2u32, 4, 8])) {
            let quantized = Array2::from_shape_fn((3, columns), |(i, j)| ((i + j) % 4) as u8);
            let packed = pack_rows(quantized.view(), bits, columns, 0);
            let row_bytes = (columns * bits as usize).div_ceil(8);
            for (row, line) in quantized.outer_iter().zip(packed.chunks(row_bytes)) {
                prop_assert_eq!(unpack_bits(line, bits, columns), row.to_vec());
            }
        }
    }
}
