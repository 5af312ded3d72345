//! Blocks of ggml as integers with scales, for types whose elements are an integer times a scale.
//!
//! Types with a minimum lie on no grid of ONNX: its zero points are integers.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use onnxq_ir::tensor::{DType, Origin, QMatrix, QShape, QSource, TensorError, ZeroPoints};

use super::{blocks::k, types::GgmlType};

/// The integers of blocks, and the scale of each part of them.
struct Parts {
    codes: Vec<u8>,
    scales: Vec<f32>,
}

/// How the elements of a type become integers of a grid.
#[derive(Clone, Copy)]
struct Grid {
    bits: u32,
    block: usize,
    zero_points: ZeroPoints,
    scale: DType,
    /// Of whole blocks; `None` of a type that the grid is only near to.
    parts: Option<fn(GgmlType, &[u8]) -> Parts>,
}

/// The grid of a type, or the nearest to it. `None`: one that is no floats of blocks.
fn grid(kind: GgmlType) -> Option<Grid> {
    use ZeroPoints::{Asymmetric, Symmetric};
    let exact = |bits, block, scale, parts| {
        Some(Grid { bits, block, zero_points: Symmetric, scale, parts: Some(parts) })
    };
    let near = |bits, block, zero_points| {
        Some(Grid { bits, block, zero_points, scale: DType::F16, parts: None })
    };
    match kind {
        GgmlType::Q4_0 => exact(4, 32, DType::F16, legacy as _),
        GgmlType::Q5_0 | GgmlType::Q8_0 => exact(8, 32, DType::F16, legacy as _),
        // Scales of parts are an integer times a float16, which float16 does not hold.
        GgmlType::Q3K => exact(4, 16, DType::F32, q3 as _),
        GgmlType::Q6K => exact(8, 16, DType::F32, q6 as _),
        GgmlType::Q2K => near(4, 16, Asymmetric),
        GgmlType::Q4_1 => near(4, 16, Asymmetric),
        GgmlType::Q4K => near(4, 32, Asymmetric),
        GgmlType::Tq1_0 | GgmlType::Tq2_0 => near(2, 128, Symmetric),
        GgmlType::Q5_1 | GgmlType::Q5K | GgmlType::Iq4Nl | GgmlType::Iq4Xs | GgmlType::Mxfp4 => {
            near(8, 32, Symmetric)
        }
        _ => None,
    }
}

/// What a file has of a matrix of blocks.
pub(super) fn origin(kind: GgmlType, columns: usize, bytes: &Bytes) -> Option<Origin> {
    let Grid { bits, block, zero_points, scale, parts } = grid(kind)?;
    let n = bytes.len().checked_div(kind.row_bytes(columns)?)?;
    let grid = QShape { n, k: columns, block, bits, zero_points, scale, superblock: None };
    let source = |parts| Arc::new(Integers { kind, grid, parts, bytes: bytes.clone() }) as _;
    Some(Origin { kind: kind.name().into(), grid, integers: parts.map(source) })
}

struct Integers {
    kind: GgmlType,
    grid: QShape,
    parts: fn(GgmlType, &[u8]) -> Parts,
    bytes: Bytes,
}

impl QSource for Integers {
    fn shape(&self) -> QShape {
        self.grid
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let width = self.bytes.len() / self.grid.n.max(1);
        let Parts { codes, scales } =
            (self.parts)(self.kind, &self.bytes[rows.start * width..rows.end * width]);
        Ok(QMatrix::new(QShape { n: rows.len(), ..self.grid }, codes, scales, None))
    }
}

/// Five bits are as far from the middle of eight.
fn legacy(kind: GgmlType, bytes: &[u8]) -> Parts {
    let format = kind.legacy().expect("of a type with one scale for 32 elements");
    let parts = format.unpack(bytes);
    let raised = if format.bits == 5 { 0x80 - format.middle() } else { 0 };
    Parts {
        codes: parts.codes.iter().map(|it| it + raised).collect(),
        scales: parts.scales.iter().map(|it| it.to_f32()).collect(),
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
    }
}
