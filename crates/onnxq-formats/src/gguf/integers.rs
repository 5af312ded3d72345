//! Blocks of ggml as integers with scales.
//!
//! Types whose elements are an integer times a scale are those of a grid of ONNX. Types with a minimum
//! for each block are not, as its zero points are integers; but what a zero point leaves of a minimum is
//! the same for all weights of a block, so it is the weight of the block's sum, which the inputs
//! are followed by (`Inputs::Summed`).

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use onnxq_ir::tensor::{
    Arranged, DType, Origin, QMatrix, QShape, QSource, TensorError, ZeroPoints,
};

use super::{blocks::k, summed, types::GgmlType};

/// The integers of blocks, and the scale of each part of them.
pub(super) struct Parts {
    pub codes: Vec<u8>,
    pub scales: Vec<f32>,
    /// What is added, of types that have it.
    pub minimums: Vec<f32>,
}

/// Of whole blocks.
type Split = fn(GgmlType, &[u8]) -> Parts;

/// What of a type a grid holds.
#[derive(Clone, Copy)]
enum Holds {
    /// All of it.
    Exact(Split),
    /// All of it when sums of inputs are there too.
    WithSums(Split),
    /// Nothing: it is only near to it.
    Nothing,
}

/// How the elements of a type become integers of a grid.
#[derive(Clone, Copy)]
struct Grid {
    bits: u32,
    block: usize,
    zero_points: ZeroPoints,
    scale: DType,
    holds: Holds,
}

/// The grid of a type, or the nearest to it. `None`: one that is no floats of blocks.
fn grid(kind: GgmlType) -> Option<Grid> {
    use ZeroPoints::{Asymmetric, Symmetric};
    let exact = |bits, block, scale, split: Split| {
        let holds = Holds::Exact(split);
        Some(Grid { bits, block, zero_points: Symmetric, scale, holds })
    };
    let with_sums = |bits, block, scale, split: Split| {
        let holds = Holds::WithSums(split);
        Some(Grid { bits, block, zero_points: Asymmetric, scale, holds })
    };
    let near = |bits, block| {
        let (scale, holds) = (DType::F16, Holds::Nothing);
        Some(Grid { bits, block, zero_points: Symmetric, scale, holds })
    };
    match kind {
        GgmlType::Q4_0 => exact(4, 32, DType::F16, legacy),
        GgmlType::Q5_0 | GgmlType::Q8_0 => exact(8, 32, DType::F16, legacy),
        // Scales of parts are an integer times a float16, which float16 does not hold.
        GgmlType::Q3K => exact(4, 16, DType::F32, q3),
        GgmlType::Q6K => exact(8, 16, DType::F32, q6),
        GgmlType::Q2K => with_sums(4, 16, DType::F32, nested),
        GgmlType::Q4_1 => with_sums(4, 32, DType::F16, legacy),
        GgmlType::Q4K => with_sums(4, 32, DType::F32, nested),
        GgmlType::Q5_1 => with_sums(8, 32, DType::F16, legacy),
        GgmlType::Q5K => with_sums(8, 32, DType::F32, nested),
        GgmlType::Tq1_0 | GgmlType::Tq2_0 => near(2, 128),
        GgmlType::Iq4Nl | GgmlType::Iq4Xs | GgmlType::Mxfp4 => near(8, 32),
        _ => None,
    }
}

/// The nearest grid of a type with minimums, for inputs as they are: about its size.
fn nearest(kind: GgmlType, grid: QShape) -> QShape {
    let block = if kind == GgmlType::Q4_1 { 16 } else { grid.block };
    let zero_points = if grid.bits == 8 { ZeroPoints::Symmetric } else { ZeroPoints::Asymmetric };
    QShape { block, zero_points, scale: DType::F16, ..grid }
}

/// What a file has of a matrix of blocks.
pub(super) fn origin(kind: GgmlType, columns: usize, bytes: &Bytes) -> Option<Origin> {
    let Grid { bits, block, zero_points, scale, holds } = grid(kind)?;
    let n = bytes.len().checked_div(kind.row_bytes(columns)?)?;
    let grid = QShape { n, k: columns, block, bits, zero_points, scale, superblock: None };
    let name = kind.name().into();
    let bytes = bytes.clone();
    Some(match holds {
        Holds::Exact(split) => {
            let integers = Some(Arc::new(Integers { kind, grid, split, bytes }) as _);
            Origin { kind: name, grid, integers, arranged: None }
        }
        Holds::WithSums(split) => {
            let source = Arc::new(Integers { kind, grid: summed::grid(grid), split, bytes });
            let arranged = Some(Arranged { inputs: summed::inputs(grid), integers: source });
            Origin { kind: name, grid: nearest(kind, grid), integers: None, arranged }
        }
        Holds::Nothing => Origin { kind: name, grid, integers: None, arranged: None },
    })
}

struct Integers {
    kind: GgmlType,
    grid: QShape,
    split: Split,
    bytes: Bytes,
}

impl QSource for Integers {
    fn shape(&self) -> QShape {
        self.grid
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let width = self.bytes.len() / self.grid.n.max(1);
        let parts = (self.split)(self.kind, &self.bytes[rows.start * width..rows.end * width]);
        let shape = QShape { n: rows.len(), ..self.grid };
        if parts.minimums.is_empty() {
            return Ok(QMatrix::new(shape, parts.codes, parts.scales, None));
        }
        Ok(summed::matrix(shape, &parts))
    }
}

/// Without a minimum, five bits are as far from the middle of eight.
fn legacy(kind: GgmlType, bytes: &[u8]) -> Parts {
    let format = kind.legacy().expect("of a type with one scale for 32 elements");
    let parts = format.unpack(bytes);
    let is_raised = format.bits == 5 && !format.has_min;
    let raised = if is_raised { 0x80 - format.middle() } else { 0 };
    Parts {
        codes: parts.codes.iter().map(|it| it + raised).collect(),
        scales: parts.scales.iter().map(|it| it.to_f32()).collect(),
        minimums: parts.mins.iter().map(|it| it.to_f32()).collect(),
    }
}

fn q3(_: GgmlType, bytes: &[u8]) -> Parts {
    signed(bytes, GgmlType::Q3K.bytes(), 8, k::q3_scale, k::q3_integer)
}

fn q6(_: GgmlType, bytes: &[u8]) -> Parts {
    signed(bytes, GgmlType::Q6K.bytes(), 128, k::q6_scale, k::q6_integer)
}

/// Blocks of 256 elements in 16 parts, by what their parts and their elements are.
fn signed(
    bytes: &[u8],
    size: usize,
    middle: u8,
    scale: fn(&[u8], usize) -> f32,
    integer: fn(&[u8], usize) -> i8,
) -> Parts {
    let blocks = || bytes.chunks_exact(size);
    let code = |block, i| middle.wrapping_add_signed(integer(block, i));
    Parts {
        codes: blocks().flat_map(|it| (0..256).map(move |i| code(it, i))).collect(),
        scales: blocks().flat_map(|it| (0..16).map(move |part| scale(it, part))).collect(),
        minimums: Vec::new(),
    }
}

/// Blocks of 256 elements in parts with a minimum each.
fn nested(kind: GgmlType, bytes: &[u8]) -> Parts {
    /// The scale of a part of a block, and the minimum that it is less.
    type Steps = fn(&[u8], usize) -> (f32, f32);
    type Integer = fn(&[u8], usize) -> u8;
    let (parts, steps, integer): (usize, Steps, Integer) = match kind {
        GgmlType::Q2K => (16, k::q2_steps, k::q2_integer),
        GgmlType::Q4K => (8, k::q45_steps, k::q4_integer),
        _ => (8, k::q45_steps, k::q5_integer),
    };
    let blocks = || bytes.chunks_exact(kind.bytes());
    let steps = blocks().flat_map(|block| (0..parts).map(move |part| steps(block, part)));
    let (scales, minimums) = steps.map(|it| (it.0, -it.1)).unzip();
    let codes = blocks().flat_map(|block| (0..256).map(move |i| integer(block, i))).collect();
    Parts { codes, scales, minimums }
}
