//! Rows are solved many at a time, one in each lane: positions are rows of all arrays here.

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul, s};

use super::{
    feedback::{Feedback, PANEL},
    polish::Polish,
};
use crate::solve::{
    blocks::Grids,
    lanes::{LANES, LaneGrid, Lanes, lane_grids, lanes, lanes_mut, store_lane},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// What one way of choosing quantized values yields for the rows of a tile.
#[derive(Clone)]
struct Choice {
    /// `[k]`, in the order of columns of the model.
    quantized: Vec<Lanes<u8>>,
    /// `Δ = w − ŵ`, `[k, LANES]`, in the order of rounding.
    delta: Array2<f32>,
    /// `Δ H Δᵀ`, without the damping.
    loss: Lanes<f64>,
}

/// Memory for solving tiles of rows of a weight.
pub(super) struct Tile<'a> {
    feedback: &'a Feedback,
    shape: QShape,
    /// The weights, `[k, LANES]`, in the order of rounding.
    weights: Vec<Lanes>,
    /// A panel of `L Δ`, `[PANEL, LANES]`.
    terms: Array2<f32>,
    best: Choice,
    other: Choice,
    polish: Option<Polish<'a>>,
}

impl<'a> Tile<'a> {
    pub(super) fn new(feedback: &'a Feedback, shape: QShape, polish: bool) -> Tile<'a> {
        let k = shape.k;
        debug_assert_eq!(feedback.order.len(), k, "the statistics of another input");
        Tile {
            feedback,
            shape,
            weights: vec![[0.0; LANES]; k],
            terms: Array2::zeros((PANEL, LANES)),
            best: Choice::new(k),
            other: Choice::new(k),
            polish: polish.then(|| Polish::new(&feedback.hessian, shape)),
        }
    }

    /// Solves the rows from `first` on and writes them to `q`. Rows that plain rounding, on the
    /// same grid or on that of `rtn`, serves better, get that.
    pub(super) fn solve(
        &mut self,
        first: usize,
        rows: ArrayView2<f32>,
        grids: &Grids,
        rtn: Option<&Grids>,
        q: &mut QMatrix,
    ) {
        let count = LANES.min(rows.nrows() - first);
        for (weights, column) in self.weights.iter_mut().zip(&self.feedback.order) {
            *weights = std::array::from_fn(|it| match it < count {
                true => rows[(first + it, *column)],
                false => 0.0,
            });
        }
        let mut own = lane_grids(grids, self.shape, first, count);
        self.descend(&own);
        let (unpolished, before) = (self.best.clone(), own.clone());
        self.polish(&mut own);
        let all: Vec<usize> = (0..count).collect();
        self.best.write(&all, first, &own, q);
        for grids in [Some(grids), rtn].into_iter().flatten() {
            let grids = lane_grids(grids, self.shape, first, count);
            let better = self.better(&grids, count);
            self.other.write(&better, first, &grids, q);
            // Polishing lowers the damped error: where that made the error itself worse than that of
            // rounding, what GPTQ found before may be better than both.
            let own: Vec<usize> = better
                .iter()
                .copied()
                .filter(|it| unpolished.loss[*it] < self.other.loss[*it])
                .collect();
            unpolished.write(&own, first, &before, q);
            better.iter().for_each(|it| {
                self.best.loss[*it] = self.other.loss[*it].min(unpolished.loss[*it])
            });
        }
    }

    /// GPTQ itself: each column is rounded where its term of `L Δ` vanishes.
    fn descend(&mut self, grids: &[LaneGrid]) {
        let Tile { feedback, shape, weights, terms, best, .. } = self;
        best.loss = [0.0; LANES];
        let mut start = 0;
        for panel in &feedback.panels {
            let end = start + panel.nrows();
            let mut terms = terms.slice_mut(s![..panel.nrows(), ..]);
            let earlier = best.delta.slice(s![..start, ..]);
            general_mat_mul(1.0, &panel.slice(s![.., ..start]), &earlier, 0.0, &mut terms);
            let terms = lanes_mut(terms.as_slice_mut().expect("whole rows"));
            let delta = lanes_mut(best.delta.as_slice_mut().expect("whole rows"));
            for at in start..end {
                let row = panel.row(at - start);
                let row = &row.as_slice().expect("rows are contiguous")[start..at];
                let own = &mut terms[at - start];
                for (factor, earlier) in row.iter().zip(&delta[start..at]) {
                    (0..LANES).for_each(|it| own[it] += factor * earlier[it]);
                }
                (0..LANES).for_each(|it| own[it] += weights[at][it]);
                let column = feedback.order[at];
                let grid = &grids[column / shape.block];
                let back = grid.round(own, &mut best.quantized[column]);
                let (weight, damping) = (feedback.weight[at], feedback.damping[at]);
                for it in 0..LANES {
                    let (term, error) = (own[it] - back[it], weights[at][it] - back[it]);
                    delta[at][it] = error;
                    best.loss[it] += f64::from(weight * term * term - damping * error * error);
                }
            }
            start = end;
        }
    }

    /// Improves on what GPTQ found; grids get other scales.
    fn polish(&mut self, grids: &mut [LaneGrid]) {
        let Tile { feedback, weights, best, polish, .. } = self;
        let Some(polish) = polish else { return };
        let delta = lanes_mut(best.delta.as_slice_mut().expect("whole rows"));
        let own = lanes_mut(polish.delta.as_slice_mut().expect("whole rows"));
        for (at, column) in feedback.order.iter().enumerate() {
            (polish.weights[*column], own[*column]) = (weights[at], delta[at]);
        }
        polish.descend(&mut best.quantized, grids);
        let own = lanes(polish.delta.as_slice().expect("whole rows"));
        best.loss = [0.0; LANES];
        for (at, column) in feedback.order.iter().enumerate() {
            delta[at] = own[*column];
            let sums = best.loss.iter_mut().zip(&delta[at]);
            sums.for_each(|(sum, it)| *sum -= f64::from(feedback.damping[at] * it * it));
        }
        for at in 0..feedback.panels.len() {
            best.add_terms(feedback, at, &mut self.terms);
        }
    }

    /// The rows that plain rounding to `grids` serves better; `other` holds their quantized values.
    ///
    /// The terms of `‖L Δ‖²` are squares, so a part of them is a bound, and mostly a small part
    /// of them exceeds all of GPTQ's loss.
    fn better(&mut self, grids: &[LaneGrid], count: usize) -> Vec<usize> {
        let Tile { feedback, shape, weights, terms, best, other, .. } = self;
        other.loss = [0.0; LANES];
        let delta = lanes_mut(other.delta.as_slice_mut().expect("whole rows"));
        for (at, column) in feedback.order.iter().enumerate() {
            let grid = &grids[column / shape.block];
            let back = grid.round(&weights[at], &mut other.quantized[*column]);
            for it in 0..LANES {
                let error = weights[at][it] - back[it];
                delta[at][it] = error;
                other.loss[it] -= f64::from(feedback.damping[at] * error * error);
            }
        }
        // A loss that is no number is no better than any.
        let open = |other: &Lanes<f64>| -> Vec<usize> {
            (0..count).filter(|it| best.loss[*it].is_nan() || other[*it] < best.loss[*it]).collect()
        };
        for at in 0..feedback.panels.len() {
            other.add_terms(feedback, at, terms);
            if open(&other.loss).is_empty() {
                return Vec::new();
            }
        }
        open(&other.loss)
    }
}

impl Choice {
    fn new(k: usize) -> Choice {
        Choice {
            quantized: vec![[0; LANES]; k],
            delta: Array2::zeros((k, LANES)),
            loss: [0.0; LANES],
        }
    }

    /// Adds the squares of a panel of `L Δ` to the loss.
    fn add_terms(&mut self, feedback: &Feedback, at: usize, terms: &mut Array2<f32>) {
        let panel = &feedback.panels[at];
        let (start, end) = (at * PANEL, at * PANEL + panel.nrows());
        let mut terms = terms.slice_mut(s![..panel.nrows(), ..]);
        general_mat_mul(1.0, panel, &self.delta.slice(s![..end, ..]), 0.0, &mut terms);
        for (term, weight) in terms.outer_iter().zip(&feedback.weight[start..end]) {
            let sums = self.loss.iter_mut().zip(term);
            sums.for_each(|(sum, term)| *sum += f64::from(weight * term * term));
        }
    }

    /// Writes some lanes to their rows; `first` is the row of lane 0.
    fn write(&self, lanes: &[usize], first: usize, grids: &[LaneGrid], q: &mut QMatrix) {
        for lane in lanes {
            let row = first + lane;
            for (integer, quantized) in q.quantized.row_mut(row).iter_mut().zip(&self.quantized) {
                *integer = quantized[*lane];
            }
            store_lane(q, row, grids, *lane);
        }
    }
}
