//! Quantized weights that a file holds, in whatever layout, as rows that any packing can store.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use ndarray::Array2;

use onnxq_ir::{
    NoMatch, no_match,
    tensor::{DType, QMatrix, QShape, QSource, Tensor, TensorError, ZeroPoints, from_f32, to_f32},
};

/// Elements that are dequantized at once.
const PIECE: usize = 1 << 20;

/// Elements of a tensor by row and column, wherever they lie.
#[derive(Clone, Debug)]
pub struct Grid {
    tensor: Tensor,
    bits: usize,
    /// Elements from a row to the next, and from a column to the next; 0 repeats one.
    row: usize,
    column: usize,
}

impl Grid {
    /// A view of `[rows, columns]` elements of `bits` bits.
    pub fn new(
        tensor: Tensor,
        bits: usize,
        [row, column]: [usize; 2],
        [rows, columns]: [usize; 2],
    ) -> Result<Grid, NoMatch> {
        let last = (rows.max(1) - 1).checked_mul(row).and_then(|at| {
            at.checked_add((columns.max(1) - 1).checked_mul(column)?)?.checked_add(1)
        });
        let held = tensor.nbytes().saturating_mul(8) / bits.max(1);
        if bits == 0 || last.is_none_or(|it| it > held) {
            return Err(no_match!("{tensor:?} is too small for {rows}×{columns} of {bits} bits"));
        }
        Ok(Grid { tensor, bits, row, column })
    }

    fn is_signed(&self) -> bool {
        matches!(self.tensor.dtype, DType::I8 | DType::I4 | DType::I2)
    }

    /// Quantized values of some rows, unsigned: a signed quantized value has its middle added.
    fn quantized(&self, rows: Range<usize>, columns: usize) -> Result<Array2<u8>, TensorError> {
        let bytes = self.tensor.bytes()?;
        let flip = if self.is_signed() { 1u8 << (self.bits - 1) } else { 0 };
        let mask = ((1u32 << self.bits) - 1) as u8;
        let start = rows.start;
        Ok(Array2::from_shape_fn((rows.len(), columns), |(i, j)| {
            let at = ((start + i) * self.row + j * self.column) * self.bits;
            ((bytes[at / 8] >> (at % 8)) & mask) ^ flip
        }))
    }

    fn floats(&self, rows: Range<usize>, columns: usize) -> Result<Array2<f32>, TensorError> {
        let (bytes, width) = (self.tensor.bytes()?, self.bits / 8);
        let mut out = Array2::zeros((rows.len(), columns));
        for ((i, j), it) in out.indexed_iter_mut() {
            let at = ((rows.start + i) * self.row + j * self.column) * width;
            let mut value = [0.0];
            to_f32(self.tensor.dtype, &bytes[at..at + width], &mut value)?;
            *it = value[0];
        }
        Ok(out)
    }

    /// What tells two views apart without reading them.
    fn place(&self) -> Option<[usize; 5]> {
        let (at, len) = self.tensor.place().filter(|_| !self.tensor.is_transposed())?;
        Some([at, len, self.bits, self.row, self.column])
    }
}

/// Where zero lies among the quantized values of a block.
#[derive(Clone, Debug)]
pub enum Zero {
    /// At the same quantized value in every block.
    Code(u8),
    Quantized(Grid),
    /// Between quantized values.
    Floats(Grid),
}

/// A quantized weight `[n, k]` as a file holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    shape: QShape,
    quantized: Grid,
    scales: Grid,
    zero: Zero,
}

impl Stored {
    /// `shape.zero_points` and `shape.scale` are found here.
    pub fn new(
        shape: QShape,
        quantized: Grid,
        scales: Grid,
        zero: Zero,
    ) -> Result<Stored, NoMatch> {
        let scale = scales.tensor.dtype;
        if !scale.is_float() {
            return Err(no_match!("its scales are {scale}"));
        }
        let mut it = Stored { shape: QShape { scale, ..shape }, quantized, scales, zero };
        it.settle_zeros().map_err(|err| no_match!("its zero points: {err}"))?;
        Ok(it)
    }

    /// Zeros that are all in the middle need not be stored; floats that are integers are stored as
    /// integers.
    fn settle_zeros(&mut self) -> Result<(), TensorError> {
        let (n, groups, middle) = (self.shape.n, self.shape.blocks(), self.shape.middle());
        if let Zero::Floats(grid) = &self.zero {
            let max = self.shape.middle() as f32 * 2.0 - 1.0;
            let values = grid.floats(0..n, groups)?;
            let is_integer = |it: &f32| it.fract() == 0.0 && (0.0..=max).contains(it);
            if values.iter().all(is_integer) {
                let bytes: Vec<u8> = values.iter().map(|it| *it as u8).collect();
                let tensor = Tensor::new(DType::U8, vec![n, groups], bytes);
                self.zero = Zero::Quantized(Grid { tensor, bits: 8, row: groups, column: 1 });
            }
        }
        let is_middle = match &self.zero {
            Zero::Code(it) => *it == middle,
            Zero::Quantized(grid) => grid.quantized(0..n, groups)?.iter().all(|it| *it == middle),
            Zero::Floats(_) => false,
        };
        if is_middle {
            self.zero = Zero::Code(middle);
        }
        self.shape.zero_points =
            if is_middle { ZeroPoints::Symmetric } else { ZeroPoints::Asymmetric };
        Ok(())
    }

    /// Formats store quantized values for zero points.
    pub fn integer_zeros(&self) -> Result<(), NoMatch> {
        match self.zero {
            Zero::Floats(_) => {
                Err(NoMatch("its zero points are floats between quantized values".into()))
            }
            _ => Ok(()),
        }
    }

    /// The same weight with its scales repeated for each `block`, which must divide its own or
    /// lie within rows of one scale.
    pub fn in_blocks(&self, block: usize) -> Result<Stored, NoMatch> {
        let own = self.shape.block;
        if own == block {
            return Ok(self.clone());
        }
        if self.shape.blocks() != 1 {
            return Err(no_match!("its blocks of {own} are no blocks of {block}"));
        }
        let repeat = |it: &Grid| Grid { column: 0, ..it.clone() };
        let zero = match &self.zero {
            Zero::Code(it) => Zero::Code(*it),
            Zero::Quantized(it) => Zero::Quantized(repeat(it)),
            Zero::Floats(it) => Zero::Floats(repeat(it)),
        };
        let shape = QShape { block, ..self.shape };
        let (quantized, scales) = (self.quantized.clone(), repeat(&self.scales));
        Ok(Stored { shape, quantized, scales, zero })
    }

    /// Rows as float, `[rows, k]`.
    fn float_rows(&self, rows: Range<usize>) -> Result<Array2<f32>, TensorError> {
        let (k, block, groups) = (self.shape.k, self.shape.block, self.shape.blocks());
        let Zero::Floats(zero_points) = &self.zero else {
            return Ok(self.solve(rows)?.dequantize());
        };
        let quantized = self.quantized.quantized(rows.clone(), k)?;
        let zero_points = zero_points.floats(rows.clone(), groups)?;
        let scales = self.scales.floats(rows, groups)?;
        Ok(Array2::from_shape_fn(quantized.dim(), |(i, j)| {
            let at = (i, j / block);
            (f32::from(quantized[(i, j)]) - zero_points[at]) * scales[at]
        }))
    }

    /// The float weight, `[n, k]`, or `[k, n]` if `turned`: computed when it is written.
    pub fn float(self: &Arc<Stored>, dtype: DType, turned: bool) -> Tensor {
        let it = self.clone();
        let QShape { n, k, .. } = self.shape;
        let shape = if turned { vec![k, n] } else { vec![n, k] };
        Tensor::lazy(dtype, shape, move || it.float_bytes(dtype, turned).map(Bytes::from))
    }

    /// Some rows at a time, so that memory holds the result and little else.
    fn float_bytes(&self, dtype: DType, turned: bool) -> Result<Vec<u8>, TensorError> {
        let (QShape { n, k, .. }, width) = (self.shape, dtype.bits() / 8);
        let mut out = vec![0u8; n * k * width];
        let step = PIECE / k.max(1) + 1;
        for start in (0..n).step_by(step) {
            let rows = self.float_rows(start..(start + step).min(n))?;
            let bytes = from_f32(dtype, rows.as_slice().expect("rows are in order"))?;
            if !turned {
                out[start * k * width..][..bytes.len()].copy_from_slice(&bytes);
                continue;
            }
            for (i, row) in bytes.chunks_exact(k * width).enumerate() {
                for (j, value) in row.chunks_exact(width).enumerate() {
                    out[(j * n + start + i) * width..][..width].copy_from_slice(value);
                }
            }
        }
        Ok(out)
    }

    /// Equal keys mean equal weights.
    pub fn key(&self) -> Option<Key> {
        let zero = match &self.zero {
            Zero::Code(it) => [usize::from(*it), 0, 0, 0, 0],
            Zero::Quantized(it) | Zero::Floats(it) => it.place()?,
        };
        let QShape { n, k, block, .. } = self.shape;
        Some(([n, k, block], [self.quantized.place()?, self.scales.place()?, zero]))
    }
}

/// The extent of a weight, and where its parts lie.
pub(crate) type Key = ([usize; 3], [[usize; 5]; 3]);

impl QSource for Stored {
    fn shape(&self) -> QShape {
        self.shape
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let groups = self.shape.blocks();
        let zero_points = match &self.zero {
            Zero::Code(it) => Array2::from_elem((rows.len(), groups), *it),
            Zero::Quantized(it) => it.quantized(rows.clone(), groups)?,
            Zero::Floats(it) => return Err(TensorError::NotInteger(it.tensor.dtype)),
        };
        let quantized = self.quantized.quantized(rows.clone(), self.shape.k)?;
        let scales = self.scales.floats(rows, groups)?;
        Ok(QMatrix::plain(self.shape, quantized, scales, zero_points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[k = 4, n = 2]` of int8, a scale and a zero per column.
    fn stored() -> Stored {
        let bytes: Vec<u8> = [1i8, -2, 3, 4, -5, 6, 7, 8].iter().map(|it| *it as u8).collect();
        let quantized = Tensor::new(DType::I8, vec![4, 2], bytes);
        let zero_points = Tensor::new(DType::I8, vec![2], vec![0u8, 1]);
        let scales = Tensor::from_f32(&[2], [0.5, 2.0]);
        let shape = QShape {
            n: 2,
            k: 4,
            block: 4,
            bits: 8,
            zero_points: ZeroPoints::Symmetric,
            scale: DType::F32,
            superblock: None,
        };
        Stored::new(
            shape,
            Grid::new(quantized, 8, [1, 2], [2, 4]).unwrap(),
            Grid::new(scales, 32, [1, 0], [2, 1]).unwrap(),
            Zero::Quantized(Grid::new(zero_points, 8, [1, 0], [2, 1]).unwrap()),
        )
        .unwrap()
    }

    #[test]
    fn columns_of_the_file_are_rows() {
        let it = Arc::new(stored());
        assert_eq!(it.shape().zero_points, ZeroPoints::Asymmetric);
        let rows = [0.5, 1.5, -2.5, 3.5, -6.0, 6.0, 10.0, 14.0];
        assert_eq!(it.float(DType::F32, false).to_f32().unwrap(), rows);
        let blocks = Arc::new(it.in_blocks(2).unwrap());
        assert_eq!(blocks.shape().blocks(), 2);
        assert_eq!(blocks.float(DType::F32, false).to_f32().unwrap(), rows);
        assert_eq!(it.float(DType::F32, true).to_f32().unwrap()[1], -6.0);
    }

    #[test]
    fn what_a_file_does_not_hold_is_refused() {
        let quantized = Tensor::new(DType::U8, vec![3], vec![0u8; 3]);
        assert!(Grid::new(quantized.clone(), 4, [3, 1], [2, 3]).is_ok());
        assert!(Grid::new(quantized.clone(), 4, [4, 1], [2, 3]).is_err());
        assert!(Grid::new(quantized, 4, [usize::MAX, 1], [3, 3]).is_err());
    }
}
