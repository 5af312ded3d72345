//! The descent of a tile of rows, one in each lane: columns are rows of all arrays here.

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul};

use crate::solve::{
    grid::{Grid, stored_scale},
    lanes::{LANES, LaneGrid, Lanes, lane_grids, lanes, lanes_mut},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// Memory for the rows of a tile.
pub(super) struct Descent<'a> {
    curvature: &'a Array2<f32>,
    shape: QShape,
    first: usize,
    count: usize,
    /// `w`, `[k, LANES]`.
    weights: Vec<Lanes>,
    /// What is added before rounding, in quantized values: -½ to ½. `[k, LANES]`.
    offsets: Vec<Lanes>,
    /// `ŵ − w` and `H (ŵ − w)`, `[k, LANES]`.
    delta: Array2<f32>,
    gradient: Array2<f32>,
    quantized: Vec<Lanes<u8>>,
    best: Best,
}

/// The state of least error that was seen, of each row.
struct Best {
    loss: Lanes<f64>,
    quantized: Vec<Lanes<u8>>,
    /// By block.
    scales: Vec<Lanes>,
    zeros: Vec<Lanes>,
}

impl<'a> Descent<'a> {
    pub(super) fn new(curvature: &'a Array2<f32>, shape: QShape) -> Descent<'a> {
        let (k, blocks) = (shape.k, shape.blocks());
        debug_assert_eq!(curvature.nrows(), k, "the statistics of another input");
        Descent {
            curvature,
            shape,
            first: 0,
            count: 0,
            weights: vec![[0.0; LANES]; k],
            offsets: vec![[0.0; LANES]; k],
            delta: Array2::zeros((k, LANES)),
            gradient: Array2::zeros((k, LANES)),
            quantized: vec![[0; LANES]; k],
            best: Best {
                loss: [f64::INFINITY; LANES],
                quantized: vec![[0; LANES]; k],
                scales: vec![[0.0; LANES]; blocks],
                zeros: vec![[0.0; LANES]; blocks],
            },
        }
    }

    /// Takes the rows from `first` on; nothing was seen of them.
    pub(super) fn start(&mut self, first: usize, rows: ArrayView2<f32>) {
        (self.first, self.count) = (first, LANES.min(rows.nrows() - first));
        let count = self.count;
        for (column, weights) in self.weights.iter_mut().enumerate() {
            *weights = std::array::from_fn(|it| match it < count {
                true => rows[(first + it, column)],
                false => 0.0,
            });
        }
        self.best.loss = [f64::INFINITY; LANES];
    }

    /// Looks at plain rounding to grids.
    pub(super) fn consider(&mut self, grids: &Array2<Grid>) {
        self.offsets.fill([0.0; LANES]);
        self.look(&lane_grids(grids, self.first, self.count));
    }

    /// Descends from plain rounding to grids: each step is smaller than the one before by the same
    /// amount.
    pub(super) fn descend(&mut self, grids: &Array2<Grid>, iterations: u32, rate: f32) {
        let start = lane_grids(grids, self.first, self.count);
        let mut grids = start.clone();
        let mut factors = vec![[1.0; LANES]; grids.len()];
        self.offsets.fill([0.0; LANES]);
        for at in 0..iterations {
            self.look(&grids);
            let rate = rate * (1.0 - at as f32 / iterations as f32);
            let starts = start.iter().zip(&mut factors);
            for (block, (grid, (start, factors))) in grids.iter_mut().zip(starts).enumerate() {
                self.step(block, grid, (start, factors), rate);
            }
        }
        self.look(&grids);
    }

    /// Rounds with the offsets, and keeps what is better than all before.
    fn look(&mut self, grids: &[LaneGrid]) {
        let block = self.shape.block;
        let delta = lanes_mut(self.delta.as_slice_mut().expect("whole rows"));
        for (column, weights) in self.weights.iter().enumerate() {
            let (grid, offsets) = (&grids[column / block], &self.offsets[column]);
            let moved = std::array::from_fn(|it| weights[it] + offsets[it] * grid.scale[it]);
            let back = grid.round(&moved, &mut self.quantized[column]);
            (0..LANES).for_each(|it| delta[column][it] = back[it] - weights[it]);
        }
        general_mat_mul(1.0, self.curvature, &self.delta, 0.0, &mut self.gradient);
        let mut loss = [0.0; LANES];
        for (delta, gradient) in self.columns() {
            (0..LANES).for_each(|it| loss[it] += f64::from(delta[it] * gradient[it]));
        }
        self.best.keep(&loss, &self.quantized, grids);
    }

    /// `ŵ − w` and `H (ŵ − w)` of each column.
    fn columns(&self) -> impl Iterator<Item = (&Lanes, &Lanes)> {
        let delta = lanes(self.delta.as_slice().expect("whole rows"));
        delta.iter().zip(lanes(self.gradient.as_slice().expect("whole rows")))
    }

    /// Moves the offsets of a block and its scale against their gradients; rounding counts as if it
    /// changed nothing, and what lies beyond the ends of the grid follows the scale alone.
    fn step(
        &mut self,
        block: usize,
        grid: &mut LaneGrid,
        (start, factors): (&LaneGrid, &mut Lanes),
        rate: f32,
    ) {
        let from = block * self.shape.block;
        let to = (from + self.shape.block).min(self.shape.k);
        let gradient = lanes(self.gradient.as_slice().expect("whole rows"));
        let mut slope = [0.0; LANES];
        for column in from..to {
            let offsets = &mut self.offsets[column];
            for it in 0..LANES {
                let units = f32::from(self.quantized[column][it]) - grid.zero[it];
                let exact = self.weights[column][it] * grid.inverse[it];
                let place = exact + offsets[it] + grid.zero[it];
                let inside = place > grid.low[it] - 0.5 && place < grid.high[it] + 0.5;
                let own = gradient[column][it];
                slope[it] += own * if inside { units - exact } else { units };
                let sign = if inside { sign(own * grid.scale[it]) } else { 0.0 };
                offsets[it] = (offsets[it] - rate * sign).clamp(-0.5, 0.5);
            }
        }
        for it in 0..LANES {
            // Of the factor: the scale it belongs to may be negative.
            factors[it] -= rate * sign(slope[it] * start.scale[it]);
            let scale = stored_scale(start.scale[it] * factors[it], self.shape.scale);
            if start.inverse[it] != 0.0 && scale.recip().is_finite() {
                (grid.scale[it], grid.inverse[it]) = (scale, scale.recip());
            }
        }
    }

    /// Writes the best of each row; `first` is the row of lane 0.
    pub(super) fn write(&self, q: &mut QMatrix) {
        for lane in 0..self.count {
            let row = self.first + lane;
            for (at, it) in self.best.quantized.iter().enumerate() {
                q.quantized[(row, at)] = it[lane];
            }
            for (at, (scales, zeros)) in self.best.scales.iter().zip(&self.best.zeros).enumerate() {
                q.scales[(row, at)] = scales[lane];
                q.zero_points[(row, at)] = zeros[lane] as u8;
            }
        }
    }
}

impl Best {
    /// Takes over the rows whose loss is less than all before.
    fn keep(&mut self, loss: &Lanes<f64>, quantized: &[Lanes<u8>], grids: &[LaneGrid]) {
        let better: Lanes<bool> = std::array::from_fn(|it| loss[it] < self.loss[it]);
        if better == [false; LANES] {
            return;
        }
        for it in 0..LANES {
            self.loss[it] = if better[it] { loss[it] } else { self.loss[it] };
        }
        for (best, own) in self.quantized.iter_mut().zip(quantized) {
            (0..LANES).for_each(|it| best[it] = if better[it] { own[it] } else { best[it] });
        }
        let best = self.scales.iter_mut().zip(&mut self.zeros);
        for ((scales, zeros), grid) in best.zip(grids) {
            for it in (0..LANES).filter(|it| better[*it]) {
                (scales[it], zeros[it]) = (grid.scale[it], grid.zero[it]);
            }
        }
    }
}

/// -1, 0 or 1; 0 of what is no number.
fn sign(of: f32) -> f32 {
    if of > 0.0 {
        1.0
    } else if of < 0.0 {
        -1.0
    } else {
        0.0
    }
}
