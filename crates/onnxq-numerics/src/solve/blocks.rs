//! Walks the blocks of a weight's rows.

use ndarray::{Array2, ArrayView2, Axis};
use pulp::Arch;

use super::grid::Grid;
use onnxq_ir::tensor::{QMatrix, QShape};

/// Rows `[n, k]` rounded to a grid per block. `choose` gets a block's values and its first column.
pub(super) fn quantize(
    rows: ArrayView2<f32>,
    extent: QShape,
    choose: impl Fn(&[f32], usize) -> Grid,
) -> QMatrix {
    Arch::new().dispatch(
        #[inline(always)]
        || each_block(rows, extent, choose),
    )
}

/// The body of [`quantize`], compiled once for each instruction set.
#[inline(always)]
fn each_block(
    rows: ArrayView2<f32>,
    extent: QShape,
    choose: impl Fn(&[f32], usize) -> Grid,
) -> QMatrix {
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
            let grid = choose(values, group * extent.block);
            grid.round(values, codes);
            scales[(row, group)] = grid.scale;
            zeros[(row, group)] = grid.zero as u8;
        }
    }
    QMatrix { shape, codes, scales, zeros }
}
