//! Rows side by side, one in each lane, with the grids of their blocks.

use super::{
    blocks::{Grids, store},
    grid::{BELOW_HALF, ROUND, Ties, stored_scale},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// Rows that are solved together. All lanes are always computed, so that a row's result does not
/// depend on its lane or its neighbours; and it is a multiple of every matrix kernel's width.
pub(super) const LANES: usize = 64;

/// One number per row.
pub(super) type Lanes<T = f32> = [T; LANES];

/// The grids of the rows of a tile for one block.
#[derive(Clone)]
pub(super) struct LaneGrid {
    pub scale: Lanes,
    pub inverse: Lanes,
    pub zero: Lanes,
    pub low: Lanes,
    pub high: Lanes,
    ties: Ties,
    /// Of the block's superblock: what integers of scales and of minimums are multiplied by.
    steps: [Lanes; 2],
}

/// The grids of `count` rows from `first` on, by block. Lanes without a row have only zero.
pub(super) fn lane_grids(
    grids: &Grids,
    shape: QShape,
    first: usize,
    count: usize,
) -> Vec<LaneGrid> {
    let Grids { blocks, steps } = grids;
    let of_block = |block: usize| {
        let ties = blocks[(first, block)].ties();
        let mut it = LaneGrid::none(ties);
        for lane in 0..count {
            let row = first + lane;
            if let Some(superblock) = shape.superblock {
                let at = block / superblock.blocks * shape.parts();
                (0..shape.parts()).for_each(|part| it.steps[part][lane] = steps[(row, at + part)]);
            }
            let grid = blocks[(row, block)];
            debug_assert_eq!(grid.ties(), ties, "ties follow from the scheme");
            // So small that no float is its inverse: it is zero for all that follows.
            let inverse = if grid.scale == 0.0 { 0.0 } else { grid.scale.recip() };
            it.inverse[lane] = if inverse.is_finite() { inverse } else { 0.0 };
            (it.scale[lane], it.zero[lane]) = (grid.scale, grid.zero);
            (it.low[lane], it.high[lane]) = (grid.low, grid.high);
        }
        it
    };
    (0..blocks.ncols()).map(of_block).collect()
}

/// Writes what is stored of the blocks of a row, which lies in a lane.
pub(super) fn store_lane(q: &mut QMatrix, row: usize, grids: &[LaneGrid], lane: usize) {
    let (size, parts) = (q.shape.superblock.map_or(usize::MAX, |it| it.blocks), q.shape.parts());
    let heads = grids.iter().step_by(size).filter(|_| q.shape.superblock.is_some());
    let steps: Vec<f32> = heads.flat_map(|it| &it.steps[..parts]).map(|it| it[lane]).collect();
    store(q, row, grids.iter().map(|it| (it.scale[lane], it.zero[lane])), &steps);
}

impl LaneGrid {
    fn none(ties: Ties) -> LaneGrid {
        let [scale, inverse, zero, low, high] = [[0.0; LANES]; 5];
        LaneGrid { scale, inverse, zero, low, high, ties, steps: [[0.0; LANES]; 2] }
    }

    /// A scale as it can be stored for a lane.
    #[inline(always)]
    pub(super) fn stored_scale(&self, lane: usize, scale: f32, shape: QShape) -> f32 {
        match shape.superblock {
            None => stored_scale(scale, shape.scale),
            Some(superblock) => {
                let (low, high) = superblock.scales(shape.zero_points);
                multiple(scale, self.steps[0][lane], (low as f32, high as f32))
            }
        }
    }

    /// A minimum as it can be stored for a lane.
    #[inline(always)]
    pub(super) fn stored_minimum(&self, lane: usize, minimum: f32, shape: QShape) -> f32 {
        match shape.superblock {
            None => stored_scale(minimum, shape.scale),
            Some(superblock) => {
                let (low, high) = superblock.scales(shape.zero_points);
                -multiple(-minimum, self.steps[1][lane], (low as f32, high as f32))
            }
        }
    }

    /// Gives a lane another scale, if a float is its inverse.
    #[inline(always)]
    pub(super) fn rescale(&mut self, lane: usize, scale: f32) {
        let inverse = scale.recip();
        if inverse.is_finite() {
            (self.scale[lane], self.inverse[lane]) = (scale, inverse);
        }
    }

    /// Takes over what another has in a lane.
    pub(super) fn take(&mut self, lane: usize, other: &LaneGrid) {
        self.scale[lane] = other.scale[lane];
        self.inverse[lane] = other.inverse[lane];
        self.zero[lane] = other.zero[lane];
        self.low[lane] = other.low[lane];
        self.high[lane] = other.high[lane];
        for (own, other) in self.steps.iter_mut().zip(&other.steps) {
            own[lane] = other[lane];
        }
    }

    /// What quantized values stand for.
    #[inline(always)]
    pub(super) fn values(&self, quantized: &Lanes<u8>) -> Lanes {
        std::array::from_fn(|it| (f32::from(quantized[it]) - self.zero[it]) * self.scale[it])
    }

    /// As [`round`](super::grid::Grid::round), and what the quantized values stand for.
    #[inline(always)]
    pub(super) fn round(&self, values: &Lanes, quantized: &mut Lanes<u8>) -> Lanes {
        let mut back = [0.0; LANES];
        for it in 0..LANES {
            let at = values[it] * self.inverse[it];
            let at = match self.ties {
                Ties::Up => (at + self.zero[it]).clamp(self.low[it], self.high[it]) + BELOW_HALF,
                Ties::Even => {
                    ((at + ROUND) - ROUND + self.zero[it]).clamp(self.low[it], self.high[it])
                }
            };
            quantized[it] = at as u8;
            back[it] = (f32::from(quantized[it]) - self.zero[it]) * self.scale[it];
        }
        back
    }
}

/// The multiple of a step next to a value.
#[inline(always)]
fn multiple(value: f32, step: f32, (low, high): (f32, f32)) -> f32 {
    if step == 0.0 { 0.0 } else { (value / step).round().clamp(low, high) * step }
}

pub(super) fn lanes(values: &[f32]) -> &[Lanes] {
    values.as_chunks().0
}

pub(super) fn lanes_mut(values: &mut [f32]) -> &mut [Lanes] {
    values.as_chunks_mut().0
}
