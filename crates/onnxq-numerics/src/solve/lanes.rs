//! Rows side by side, one in each lane, with the grids of their blocks.

use ndarray::Array2;

use super::grid::{BELOW_HALF, Grid, ROUND, Ties};

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
}

/// The grids of `count` rows from `first` on, by block. Lanes without a row have only zero.
pub(super) fn lane_grids(grids: &Array2<Grid>, first: usize, count: usize) -> Vec<LaneGrid> {
    let none = [0.0; LANES];
    let of_block = |block: usize| {
        let ties = grids[(first, block)].ties();
        let mut it =
            LaneGrid { scale: none, inverse: none, zero: none, low: none, high: none, ties };
        for lane in 0..count {
            let grid = grids[(first + lane, block)];
            debug_assert_eq!(grid.ties(), ties, "ties follow from the scheme");
            // So small that no float is its inverse: it is zero for all that follows.
            let inverse = if grid.scale == 0.0 { 0.0 } else { grid.scale.recip() };
            it.inverse[lane] = if inverse.is_finite() { inverse } else { 0.0 };
            (it.scale[lane], it.zero[lane]) = (grid.scale, grid.zero);
            (it.low[lane], it.high[lane]) = (grid.low, grid.high);
        }
        it
    };
    (0..grids.ncols()).map(of_block).collect()
}

impl LaneGrid {
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
    }

    /// What quantized values stand for.
    #[inline(always)]
    pub(super) fn values(&self, quantized: &Lanes<u8>) -> Lanes {
        std::array::from_fn(|it| (f32::from(quantized[it]) - self.zero[it]) * self.scale[it])
    }

    /// As [`Grid::round`], and what the quantized values stand for.
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

pub(super) fn lanes(values: &[f32]) -> &[Lanes] {
    values.as_chunks().0
}

pub(super) fn lanes_mut(values: &mut [f32]) -> &mut [Lanes] {
    values.as_chunks_mut().0
}
