//! The descent of a tile of rows, one in each lane: columns are rows of all arrays here.

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul};
use pulp::Arch;

use super::{Curvature, Polish};
use crate::solve::{
    blocks::Grids,
    lanes::{LANES, LaneGrid, Lanes, lane_grids, lanes, lanes_mut, store_lane},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// The least part of a scale that a descent may arrive at.
const LEAST: f32 = 1.0 / 16.0;

/// Memory for the rows of a tile.
pub(super) struct Descent<'a> {
    curvature: &'a Curvature,
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
    /// By block; none before anything was seen.
    grids: Vec<LaneGrid>,
}

impl<'a> Descent<'a> {
    pub(super) fn new(curvature: &'a Curvature, shape: QShape) -> Descent<'a> {
        let k = shape.k;
        debug_assert_eq!(curvature.damping.len(), k, "the statistics of another input");
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
                grids: Vec::new(),
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
        self.best.grids.clear();
    }

    /// Looks at plain rounding to grids.
    pub(super) fn consider(&mut self, grids: &Grids) {
        self.offsets.fill([0.0; LANES]);
        self.look(&lane_grids(grids, self.shape, self.first, self.count));
    }

    /// Descends from plain rounding to grids: each step is smaller than the one before by the same
    /// amount.
    pub(super) fn descend(&mut self, grids: &Grids, iterations: u32, rate: f32) {
        let start = lane_grids(grids, self.shape, self.first, self.count);
        let (mut grids, mut factors) = (start.clone(), vec![[1.0; LANES]; start.len()]);
        let arch = Arch::new();
        self.offsets.fill([0.0; LANES]);
        for at in 0..iterations {
            self.look(&grids);
            let rate = rate * (1.0 - at as f32 / iterations as f32);
            let starts = start.iter().zip(&mut factors);
            for (block, (grid, (start, factors))) in grids.iter_mut().zip(starts).enumerate() {
                arch.dispatch(
                    #[inline(always)]
                    || self.step(block, grid, (start, factors), rate),
                );
            }
        }
        self.look(&grids);
    }

    /// Improves on the best of each row, one rounding and one scale after the other.
    pub(super) fn polish(&mut self, polish: &mut Polish) {
        let (mut grids, mut quantized) = (self.best.grids.clone(), self.best.quantized.clone());
        let delta = lanes_mut(polish.delta.as_slice_mut().expect("whole rows"));
        polish.weights.clone_from(&self.weights);
        for (column, quantized) in quantized.iter().enumerate() {
            let back = grids[column / self.shape.block].values(quantized);
            delta[column] = std::array::from_fn(|it| self.weights[column][it] - back[it]);
        }
        polish.descend(&mut quantized, &mut grids);
        self.quantized = quantized;
        self.judge(&grids);
    }

    /// Rounds with the offsets, and keeps what is better than all before.
    fn look(&mut self, grids: &[LaneGrid]) {
        let columns = self.weights.iter().zip(&self.offsets).zip(&mut self.quantized);
        for (column, ((weights, offsets), quantized)) in columns.enumerate() {
            let grid = &grids[column / self.shape.block];
            let moved = std::array::from_fn(|it| weights[it] + offsets[it] * grid.scale[it]);
            grid.round(&moved, quantized);
        }
        self.judge(grids);
    }

    /// What the quantized values cost, and how that would change with each; rows that are better than
    /// all before are kept.
    fn judge(&mut self, grids: &[LaneGrid]) {
        let delta = lanes_mut(self.delta.as_slice_mut().expect("whole rows"));
        for (column, weights) in self.weights.iter().enumerate() {
            let back = grids[column / self.shape.block].values(&self.quantized[column]);
            delta[column] = std::array::from_fn(|it| back[it] - weights[it]);
        }
        general_mat_mul(1.0, &self.curvature.hessian, &self.delta, 0.0, &mut self.gradient);
        let delta = lanes(self.delta.as_slice().expect("whole rows"));
        let gradient = lanes(self.gradient.as_slice().expect("whole rows"));
        let mut loss = [0.0; LANES];
        for ((delta, gradient), damping) in delta.iter().zip(gradient).zip(&self.curvature.damping)
        {
            for it in 0..LANES {
                loss[it] += f64::from(delta[it] * (gradient[it] - damping * delta[it]));
            }
        }
        self.best.keep(&loss, &self.quantized, grids);
    }

    /// Moves the offsets of a block and its scale against their gradients; rounding counts as if it
    /// changed nothing, and what lies beyond the ends of the grid follows the scale alone.
    #[inline(always)]
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
        let columns = self.offsets[from..to].iter_mut().zip(&self.quantized[from..to]);
        let columns = columns.zip(self.weights[from..to].iter().zip(&gradient[from..to]));
        for ((offsets, quantized), (weights, gradient)) in columns {
            for it in 0..LANES {
                let units = f32::from(quantized[it]) - grid.zero[it];
                let exact = weights[it] * grid.inverse[it];
                let place = exact + offsets[it] + grid.zero[it];
                let inside = place > grid.low[it] - 0.5 && place < grid.high[it] + 0.5;
                slope[it] += gradient[it] * if inside { units - exact } else { units };
                let sign = if inside { sign(gradient[it] * grid.scale[it]) } else { 0.0 };
                offsets[it] = (offsets[it] - rate * sign).clamp(-0.5, 0.5);
            }
        }
        for it in 0..LANES {
            // Of the factor: the scale it belongs to may be negative, and stays so.
            let moved = factors[it] - rate * sign(slope[it] * start.scale[it]);
            factors[it] = moved.max(LEAST);
            if start.inverse[it] != 0.0 {
                let scale = start.scale[it] * factors[it];
                grid.rescale(it, grid.stored_scale(it, scale, self.shape));
            }
        }
    }

    /// Writes the best of each row.
    pub(super) fn write(&self, q: &mut QMatrix) {
        for lane in 0..self.count {
            let row = self.first + lane;
            for (at, it) in self.best.quantized.iter().enumerate() {
                q.quantized[(row, at)] = it[lane];
            }
            store_lane(q, row, &self.best.grids, lane);
        }
    }
}

impl Best {
    /// Takes over the rows whose loss is less than all before. What was seen first is taken in any
    /// case: of a loss that is no number nothing is less.
    fn keep(&mut self, loss: &Lanes<f64>, quantized: &[Lanes<u8>], grids: &[LaneGrid]) {
        if self.grids.is_empty() {
            self.quantized.copy_from_slice(quantized);
            (self.grids, self.loss) = (grids.to_vec(), *loss);
            return;
        }
        let better: Vec<usize> = (0..LANES).filter(|it| loss[*it] < self.loss[*it]).collect();
        for lane in better {
            self.loss[lane] = loss[lane];
            for (best, own) in self.quantized.iter_mut().zip(quantized) {
                best[lane] = own[lane];
            }
            self.grids.iter_mut().zip(grids).for_each(|(best, own)| best.take(lane, own));
        }
    }
}

/// -1, 0 or 1; 0 of what is no number.
#[inline(always)]
fn sign(of: f32) -> f32 {
    if of > 0.0 {
        1.0
    } else if of < 0.0 {
        -1.0
    } else {
        0.0
    }
}
