//! Walks the blocks of a weight's rows.

use ndarray::{Array2, ArrayView2, Axis};
use pulp::Arch;

use super::grid::Grid;
use onnxq_ir::tensor::{QMatrix, QShape};

/// Rows `[n, k]` rounded to a grid per block. `choose` gets a block's values and its first column.
pub(super) fn quantize(
    rows: ArrayView2<f32>,
    shape: QShape,
    choose: impl Fn(&[f32], usize) -> Grid,
) -> QMatrix {
    Arch::new().dispatch(
        #[inline(always)]
        || each_block(rows, shape, choose),
    )
}

/// The body of [`quantize`], compiled once for each instruction set.
#[inline(always)]
fn each_block(
    rows: ArrayView2<f32>,
    shape: QShape,
    choose: impl Fn(&[f32], usize) -> Grid,
) -> QMatrix {
    let (n, groups) = (rows.nrows(), shape.blocks());
    let shape = QShape { n, ..shape };
    let mut quantized = Array2::zeros((n, shape.k));
    let mut scales = Array2::zeros((n, groups));
    let mut zero_points = Array2::zeros((n, groups));
    let lines = quantized.axis_iter_mut(Axis(0)).zip(rows.axis_iter(Axis(0)));
    for (row, (mut quantized, values)) in lines.enumerate() {
        let values = values.to_slice().expect("rows are contiguous");
        let quantized = quantized.as_slice_mut().expect("rows are contiguous");
        let blocks = values.chunks(shape.block).zip(quantized.chunks_mut(shape.block));
        for (group, (values, quantized)) in blocks.enumerate() {
            let grid = choose(values, group * shape.block);
            grid.round(values, quantized);
            scales[(row, group)] = grid.scale;
            zero_points[(row, group)] = grid.zero as u8;
        }
    }
    QMatrix { shape, quantized, scales, zero_points }
}

/// What `of` makes of every block of every row.
pub(super) fn of_blocks(
    rows: ArrayView2<f32>,
    shape: QShape,
    of: impl Fn(usize, &[f32]) -> Grid,
) -> Array2<Grid> {
    let mut grids = Vec::with_capacity(rows.nrows() * shape.blocks());
    for row in rows.axis_iter(Axis(0)) {
        let values = row.to_slice().expect("rows are contiguous");
        grids.extend(values.chunks(shape.block).enumerate().map(|(at, it)| of(at, it)));
    }
    Array2::from_shape_vec((rows.nrows(), shape.blocks()), grids).expect("a grid for each block")
}

/// Every value to the nearest of its grid.
pub(super) fn round(rows: ArrayView2<f32>, grids: &Array2<Grid>, q: &mut QMatrix) {
    let block = q.shape.block;
    for (row, values) in rows.axis_iter(Axis(0)).enumerate() {
        let values = values.to_slice().expect("rows are contiguous");
        let mut quantized = q.quantized.row_mut(row);
        let quantized = quantized.as_slice_mut().expect("rows are contiguous");
        let parts = values.chunks(block).zip(quantized.chunks_mut(block));
        for (group, (values, quantized)) in parts.enumerate() {
            let grid = grids[(row, group)];
            grid.round(values, quantized);
            q.scales[(row, group)] = grid.scale;
            q.zero_points[(row, group)] = grid.zero as u8;
        }
    }
}
