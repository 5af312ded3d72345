//! Sums over a block's values. They are made in a fixed number of lanes and added up in a fixed
//! order, so that every instruction set yields the same bits.

use std::borrow::Cow;

use super::grid::{Grid, Ties};

/// What errors count; without weights all the same.
pub(super) fn or_ones(weights: Option<&[f32]>, count: usize) -> Cow<'_, [f32]> {
    weights.map_or_else(|| vec![1.0; count].into(), Cow::from)
}

/// Values that are summed side by side.
pub(super) const LANES: usize = 8;

/// `Σ w (v - ŵ)²` of the values that a grid's quantized values decode to.
#[inline(always)]
pub(super) fn error(values: &[f32], weights: &[f32], grid: &Grid) -> f64 {
    // Chosen once: the compiler makes no vectors of a loop that asks again for each value.
    match grid.ties() {
        Ties::Up => error_of(values, weights, &grid.tied(Ties::Up)),
        Ties::Even => error_of(values, weights, &grid.tied(Ties::Even)),
    }
}

#[inline(always)]
fn error_of(values: &[f32], weights: &[f32], grid: &Grid) -> f64 {
    let mut sums = [0.0; LANES];
    let (values, value_rest) = values.as_chunks::<LANES>();
    let (weights, weight_rest) = weights.as_chunks::<LANES>();
    let rest = (padded(value_rest), padded(weight_rest));
    let inverse = grid.inverse();
    let whole = values.iter().zip(weights);
    for (values, weights) in whole.chain([(&rest.0, &rest.1)]) {
        for lane in 0..LANES {
            let back = grid.value(grid.round_by(values[lane], inverse));
            let rest = f64::from(values[lane] - back);
            sums[lane] += f64::from(weights[lane]) * rest * rest;
        }
    }
    across(sums)
}

/// The last lanes of a block, and zeros after them.
#[inline(always)]
pub(super) fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The sum of all lanes.
#[inline(always)]
pub(super) fn total(lanes: [f32; LANES]) -> f64 {
    across(lanes.map(f64::from))
}

#[inline(always)]
fn across(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
