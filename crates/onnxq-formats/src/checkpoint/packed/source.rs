//! Integers of a weight, wherever they lie: rows of them, and the floats that they stand for.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use ndarray::Axis;
use onnxq_ir::tensor::{
    Arranged, DType, Inputs, Origin, QMatrix, QShape, QSource, Rows, TensorError, ZeroPoints,
    to_f32,
};

use super::Part;

/// Unsigned integers in words of 32 bits, or bytes.
#[derive(Clone)]
pub(super) struct Integers {
    bytes: Bytes,
    bits: u32,
    along: Along,
    /// Rows of the tensor are the inputs of the weight: row and column change places.
    by_input: bool,
}

/// In which direction the integers of a word follow each other.
#[derive(Clone, Copy)]
pub(super) enum Along {
    /// Down a column of words, of which a row has `width`, from the lowest bit on; one may reach into
    /// the next word.
    Down { width: usize },
    /// Across a row of `words`, perhaps in another order within a word.
    Across { words: usize, order: Option<[usize; 8]> },
    /// Signed bytes in rows.
    Bytes { width: usize },
}

impl Integers {
    pub(super) fn new(bytes: Bytes, bits: u32, along: Along) -> Integers {
        Integers { bytes, bits, along, by_input: false }
    }

    pub(super) fn by_input(bytes: Bytes, bits: u32, along: Along) -> Integers {
        Integers { by_input: true, ..Integers::new(bytes, bits, along) }
    }

    pub(super) fn is_by_input(&self) -> bool {
        self.by_input
    }

    /// The integer at an output and an input of the weight.
    pub(super) fn get(&self, row: usize, column: usize) -> u8 {
        let (row, column) = if self.by_input { (column, row) } else { (row, column) };
        match self.along {
            Along::Bytes { width } => self.bytes[row * width + column] ^ 0x80,
            Along::Down { width } => {
                self.of_stream(column * self.bits as usize, |word| word * width + row)
            }
            Along::Across { words, order: None } => {
                self.of_stream(column * self.bits as usize, |word| row * words + word)
            }
            Along::Across { words, order: Some(order) } => {
                let at = column / 8 * 8 + order[column % 8];
                self.of_stream(at * self.bits as usize, |word| row * words + word)
            }
        }
    }

    /// `bits` from a bit on of a stream whose words lie at `place`.
    fn of_stream(&self, bit: usize, place: impl Fn(usize) -> usize) -> u8 {
        let (word, shift) = (bit / 32, bit % 32);
        let mut value = u64::from(self.word(place(word))) >> shift;
        if shift + self.bits as usize > 32 {
            value |= u64::from(self.word(place(word + 1))) << (32 - shift);
        }
        (value & ((1 << self.bits) - 1)) as u8
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at * 4..][..4].try_into().expect("four bytes"))
    }
}

/// Scales as they are stored.
pub(super) struct Scales {
    dtype: DType,
    bytes: Bytes,
    /// Elements from a group to the next, and from an output to the next.
    steps: [usize; 2],
}

impl Scales {
    pub(super) fn new(part: Part, by_group: usize, by_row: usize) -> Scales {
        Scales { dtype: part.dtype, bytes: part.bytes, steps: [by_group, by_row] }
    }

    fn get(&self, row: usize, group: usize) -> Result<f32, TensorError> {
        let width = self.dtype.bits() / 8;
        let at = (group * self.steps[0] + row * self.steps[1]) * width;
        let mut value = [0.0];
        to_f32(self.dtype, &self.bytes[at..at + width], &mut value)?;
        Ok(value[0])
    }
}

/// A weight of a quantized checkpoint.
pub(super) struct Packed {
    pub kind: Arc<str>,
    pub grid: QShape,
    integers: Integers,
    /// By outputs and groups.
    zeros: Vec<i16>,
    scales: Scales,
    /// The group of each input, if they do not follow each other.
    columns: Option<Vec<usize>>,
    /// The inputs group by group, if the groups are blocks of the grid then.
    order: Option<Arc<[usize]>>,
    /// Whether ONNX has integers up to the largest zero point.
    is_grid: bool,
}

impl Packed {
    pub(super) fn new(
        kind: &str,
        grid: QShape,
        integers: Integers,
        zeros: Vec<i16>,
        scales: Scales,
        columns: Option<Vec<usize>>,
    ) -> Packed {
        let middle = 1i16 << (grid.bits - 1);
        let largest = zeros.iter().copied().max().unwrap_or(middle);
        // GPTQ's first version has zero points up to 2^bits; ONNX has integers of 2, 4 and 8 bits.
        let bits = match grid.bits {
            bits @ (2 | 4 | 8) if largest < 1 << bits => bits,
            2 | 3 => 4,
            _ => 8,
        };
        let is_middle = zeros.iter().all(|it| *it == middle);
        let zero_points = if is_middle { ZeroPoints::Symmetric } else { ZeroPoints::Asymmetric };
        let is_grid = zeros.iter().all(|it| (0..1 << bits).contains(it));
        let why = if columns.is_some() { ", inputs in an order of their own" } else { "" };
        let (kind, grid) = (format!("{kind}{why}").into(), QShape { bits, zero_points, ..grid });
        let order = columns.as_deref().and_then(|it| by_group(it, grid.block));
        Packed { kind, grid, integers, zeros, scales, columns, order, is_grid }
    }

    fn groups(&self) -> usize {
        self.grid.blocks()
    }

    fn group(&self, column: usize) -> usize {
        match &self.columns {
            Some(it) => it[column],
            None => column / self.grid.block,
        }
    }
}

impl QSource for Packed {
    fn shape(&self) -> QShape {
        self.grid
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let (k, groups) = (self.grid.k, self.groups());
        let middle = 1i16 << (self.integers.bits - 1);
        // In more bits the middle lies higher.
        let raised = match self.grid.zero_points {
            ZeroPoints::Symmetric => i16::from(self.grid.middle()) - middle,
            ZeroPoints::Asymmetric | ZeroPoints::Minimum => 0,
        };
        let shape = QShape { n: rows.len(), ..self.grid };
        let of_rows = |row| (0..k).map(move |column| (row, column));
        let integer =
            |it: (usize, usize)| (i16::from(self.integers.get(it.0, it.1)) + raised) as u8;
        let codes = rows.clone().flat_map(of_rows).map(integer).collect();
        let of_groups = |row| (0..groups).map(move |group| (row, group));
        let cells = || rows.clone().flat_map(of_groups);
        let scales = cells().map(|it| self.scales.get(it.0, it.1)).collect::<Result<_, _>>()?;
        let zeros = cells().map(|it| (self.zeros[it.0 * groups + it.1] + raised) as u8).collect();
        Ok(QMatrix::new(shape, codes, scales, Some(zeros)))
    }
}

impl Rows for Packed {
    fn read(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Vec<f32>, TensorError> {
        let groups = self.groups();
        let mut out = Vec::with_capacity(rows.len() * columns.len());
        for row in rows {
            let scales: Vec<f32> =
                (0..groups).map(|it| self.scales.get(row, it)).collect::<Result<_, _>>()?;
            let zeros = &self.zeros[row * groups..][..groups];
            out.extend(columns.clone().map(|column| {
                let group = self.group(column);
                let integer = i16::from(self.integers.get(row, column));
                f32::from(integer - zeros[group]) * scales[group]
            }));
        }
        Ok(out)
    }

    fn place(&self) -> usize {
        self.integers.bytes.as_ptr().addr()
    }

    fn origin(self: Arc<Self>) -> Option<Origin> {
        let (kind, grid) = (self.kind.clone(), self.grid);
        let order = self.order.clone();
        let integers = (self.is_grid && self.columns.is_none()).then(|| self.clone() as _);
        let arranged = order.filter(|_| self.is_grid).map(|order| Arranged {
            inputs: Inputs::Ordered(order.clone()),
            integers: Arc::new(Ordered { base: self, order }),
        });
        Some(Origin { kind, grid, integers, arranged })
    }
}

/// Inputs in the order of their groups, if each of these is a block then.
fn by_group(columns: &[usize], block: usize) -> Option<Arc<[usize]>> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|it| columns[*it]);
    let is_block = |(at, from): (usize, &usize)| columns[*from] == at / block;
    order.iter().enumerate().all(is_block).then(|| order.into())
}

/// Integers whose inputs lie group by group.
struct Ordered {
    base: Arc<Packed>,
    order: Arc<[usize]>,
}

impl QSource for Ordered {
    fn shape(&self) -> QShape {
        self.base.grid
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let own = self.base.solve(rows)?;
        // Rows of integers follow each other where they are packed.
        let quantized =
            own.quantized.select(Axis(1), &self.order).as_standard_layout().into_owned();
        Ok(QMatrix { quantized, ..own })
    }
}
