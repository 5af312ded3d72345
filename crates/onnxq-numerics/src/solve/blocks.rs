//! Walks the blocks of a weight's rows.

use ndarray::{Array2, ArrayView2, Axis};
use pulp::Arch;

use super::{
    grid::{Grid, stored_scale},
    nest::nest,
};
use crate::scheme::Scheme;
use onnxq_ir::tensor::{QMatrix, QShape, ZeroPoints};

/// The grids of all blocks of some rows, `[n, blocks]`, and the steps of their superblocks, as
/// [`QMatrix::steps`] has them.
pub(super) struct Grids {
    pub blocks: Array2<Grid>,
    pub steps: Array2<f32>,
}

/// Rows `[n, k]` rounded to a grid per block. `choose` gets a block's values and its first column;
/// `weights` are what errors in columns count, if not all the same.
pub(super) fn quantize(
    rows: ArrayView2<f32>,
    (scheme, shape): (&Scheme, QShape),
    weights: Option<&[f32]>,
    choose: impl Fn(&[f32], usize) -> Grid,
) -> QMatrix {
    if scheme.is_plain() {
        return Arch::new().dispatch(
            #[inline(always)]
            || each_block(rows, shape, choose),
        );
    }
    let grids = of_blocks(rows, (scheme, shape), weights, |group, values| {
        choose(values, group * shape.block)
    });
    let mut q = QMatrix::zeros(shape, rows.nrows());
    round(rows, &grids, &mut q);
    q
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
    QMatrix::plain(shape, quantized, scales, zero_points)
}

/// What `of` makes of every block of every row; within superblocks, what is left of it.
pub(super) fn of_blocks(
    rows: ArrayView2<f32>,
    (scheme, shape): (&Scheme, QShape),
    weights: Option<&[f32]>,
    of: impl Fn(usize, &[f32]) -> Grid,
) -> Grids {
    let (n, count) = (rows.nrows(), shape.steps());
    let mut grids = Vec::with_capacity(n * shape.blocks());
    let mut steps = Vec::with_capacity(n * count);
    for row in rows.axis_iter(Axis(0)) {
        let values = row.to_slice().expect("rows are contiguous");
        let start = grids.len();
        grids.extend(values.chunks(shape.block).enumerate().map(|(at, it)| of(at, it)));
        if let Some(superblock) = scheme.superblock {
            nest(&mut grids[start..], values, weights, (scheme, superblock, shape), &mut steps);
        }
    }
    let fits = "a grid for each block, steps for each superblock";
    Grids {
        blocks: Array2::from_shape_vec((n, shape.blocks()), grids).expect(fits),
        steps: Array2::from_shape_vec((n, count), steps).expect(fits),
    }
}

/// Every value to the nearest of its grid.
pub(super) fn round(rows: ArrayView2<f32>, grids: &Grids, q: &mut QMatrix) {
    let block = q.shape.block;
    for (row, values) in rows.axis_iter(Axis(0)).enumerate() {
        let values = values.to_slice().expect("rows are contiguous");
        let mut quantized = q.quantized.row_mut(row);
        let quantized = quantized.as_slice_mut().expect("rows are contiguous");
        let parts = values.chunks(block).zip(quantized.chunks_mut(block));
        for (group, (values, quantized)) in parts.enumerate() {
            grids.blocks[(row, group)].round(values, quantized);
        }
        let steps = grids.steps.row(row);
        let steps = steps.as_slice().expect("rows are contiguous");
        let blocks = (0..grids.blocks.ncols()).map(|it| grids.blocks[(row, it)]);
        store(q, row, blocks.map(|it| (it.scale, it.zero)), steps);
    }
}

/// What is stored of a row's blocks, of each its scale and its zero, and of its superblocks.
pub(super) fn store(
    q: &mut QMatrix,
    row: usize,
    blocks: impl Iterator<Item = (f32, f32)>,
    steps: &[f32],
) {
    let shape = q.shape;
    for (group, (scale, zero)) in blocks.enumerate() {
        q.scales[(row, group)] = scale;
        if shape.zero_points != ZeroPoints::Minimum {
            q.zero_points[(row, group)] = zero as u8;
            continue;
        }
        // Computed from the zero it may be off by the last bit.
        let minimum = -(zero * scale);
        q.minimums[(row, group)] = match shape.superblock {
            None => stored_scale(minimum, shape.scale),
            Some(superblock) => {
                let step = steps[2 * (group / superblock.blocks) + 1];
                if step == 0.0 { 0.0 } else { (minimum / step).round() * step }
            }
        };
    }
    q.steps.row_mut(row).iter_mut().zip(steps).for_each(|(to, it)| *to = *it);
}
