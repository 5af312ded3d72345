//! The grid of a block by search: shrink the range, keep what costs least.

use super::grid::{Grid, grid};
use crate::{quant::scheme::Scheme, tensor::DType};

/// Fractions of the block's range that are tried: 1 down to 0.7.
const STEPS: usize = 13;

/// The grid of least squared error, each value's weighted by `weights`.
pub(super) fn fit(values: &[f32], weights: Option<&[f32]>, scheme: &Scheme, stored: DType) -> Grid {
    let widest = grid(values, scheme, stored);
    let mut codes = vec![0u8; values.len()];
    let mut best = (cost(&widest, values, weights, &mut codes), widest);
    for step in 1..STEPS {
        let scale = widest.scale * (1.0 - 0.025 * step as f32);
        let scale = match stored {
            DType::F16 => half::f16::from_f32(scale).to_f32(),
            _ => scale,
        };
        let narrow = Grid { scale, ..widest };
        let loss = cost(&narrow, values, weights, &mut codes);
        if loss < best.0 {
            best = (loss, narrow);
        }
    }
    best.1
}

fn cost(grid: &Grid, values: &[f32], weights: Option<&[f32]>, codes: &mut [u8]) -> f32 {
    grid.round(values, codes);
    let mut sum = 0.0;
    for (at, (value, code)) in values.iter().zip(codes).enumerate() {
        let error = value - (f32::from(*code) - grid.zero) * grid.scale;
        sum += error * error * weights.map_or(1.0, |it| it[at]);
    }
    sum
}
