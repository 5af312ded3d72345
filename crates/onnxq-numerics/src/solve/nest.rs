//! Scales of blocks as integers times a step that a superblock shares, and minimums likewise: what ggml
//! calls K types.
//!
//! Each block comes with the grid that suits it best. The largest scale of the superblock says what the
//! step is; of the integers next to a block's own those with the least error are taken, and then the
//! steps that suit all of them best, once.

use super::{
    grid::Grid,
    sums::{self, or_ones},
};
use crate::scheme::Scheme;
use half::f16;
use onnxq_ir::tensor::{QShape, Superblock, ZeroPoints};

/// The blocks of a superblock, their values, and what errors count.
struct Blocks<'a> {
    scheme: &'a Scheme,
    superblock: Superblock,
    size: usize,
    values: &'a [f32],
    weights: &'a [f32],
    /// What suits each block best.
    wishes: &'a [Grid],
}

/// Steps, the grids that they lead to, and their error.
struct Found {
    steps: [f32; 2],
    grids: Vec<Grid>,
    error: f64,
}

/// Rounds the grids of a row's blocks, and appends the steps of its superblocks.
pub(super) fn nest(
    grids: &mut [Grid],
    values: &[f32],
    weights: Option<&[f32]>,
    (scheme, superblock, shape): (&Scheme, Superblock, QShape),
    steps: &mut Vec<f32>,
) {
    let weights = &*or_ones(weights, values.len());
    let width = shape.block * superblock.blocks;
    let parts = values.chunks(width).zip(weights.chunks(width));
    for (grids, (values, weights)) in grids.chunks_mut(superblock.blocks).zip(parts) {
        let blocks =
            Blocks { scheme, superblock, size: shape.block, values, weights, wishes: grids };
        let found = blocks.best();
        grids.copy_from_slice(&found.grids);
        steps.extend(&found.steps[..shape.parts()]);
    }
}

impl Blocks<'_> {
    fn best(&self) -> Found {
        let first = self.with(self.first_steps());
        let second = self.with(self.fitted(&first));
        // `<`: what is no number is no gain.
        if second.error < first.error { second } else { first }
    }

    fn has_minimums(&self) -> bool {
        self.scheme.zero_points == ZeroPoints::Minimum
    }

    /// The largest integer for the largest scale and minimum. Of signed ones the lowest, which is one
    /// more.
    fn first_steps(&self) -> [f32; 2] {
        let (low, high) = self.superblock.scales(self.scheme.zero_points);
        if !self.has_minimums() {
            let farther =
                |far: f32, it: &Grid| if it.scale.abs() > far.abs() { it.scale } else { far };
            let extreme = self.wishes.iter().fold(0.0, farther);
            return [rounded(extreme / low as f32), 0.0];
        }
        let most = |of: fn(&Grid) -> f32| self.wishes.iter().map(of).fold(0.0, f32::max);
        let high = high as f32;
        [rounded(most(|it| it.scale) / high), rounded(most(|it| -it.minimum()) / high)]
    }

    /// The best integers for given steps.
    fn with(&self, steps: [f32; 2]) -> Found {
        let mut found = Found { steps, grids: Vec::with_capacity(self.wishes.len()), error: 0.0 };
        let parts = self.values.chunks(self.size).zip(self.weights.chunks(self.size));
        for (wish, (values, weights)) in self.wishes.iter().zip(parts) {
            let mut best = (f64::INFINITY, wish.with(0.0, wish.zero));
            for grid in self.near(wish, steps) {
                let error = sums::error(values, weights, &grid);
                if error < best.0 {
                    best = (error, grid);
                }
            }
            found.grids.push(best.1);
            found.error += best.0;
        }
        found
    }

    /// The grids of integers next to those that a block wants.
    fn near(&self, wish: &Grid, steps: [f32; 2]) -> Vec<Grid> {
        let (low, high) = self.superblock.scales(self.scheme.zero_points);
        let around = |wish: f32, step: f32| {
            let at = if step == 0.0 { 0.0 } else { (wish / step).round() };
            [0.0, -1.0, 1.0].map(|it| (at + it).clamp(low as f32, high as f32))
        };
        let scales = around(wish.scale, steps[0]);
        let minimums = if self.has_minimums() {
            around(-wish.minimum(), steps[1]).to_vec()
        } else {
            vec![0.0]
        };
        let mut list = Vec::with_capacity(10);
        for scale in scales {
            let scale = scale * steps[0];
            if !self.has_minimums() || scale == 0.0 {
                list.push(wish.with(scale, if self.has_minimums() { 0.0 } else { wish.zero }));
                continue;
            }
            list.extend(minimums.iter().map(|it| wish.with(scale, it * steps[1] / scale)));
        }
        list
    }

    /// The steps of least squared error for the integers of a solution.
    fn fitted(&self, found: &Found) -> [f32; 2] {
        // Of `v ≈ a · x + b · y`, `x` and `y` being integers.
        let [mut xx, mut xy, mut yy, mut xv, mut yv] = [0.0f64; 5];
        let parts = self.values.chunks(self.size).zip(self.weights.chunks(self.size));
        for (grid, (values, weights)) in found.grids.iter().zip(parts) {
            let units =
                |value: f32, step: f32| if step == 0.0 { 0.0 } else { (value / step).round() };
            let (scale, inverse) = (units(grid.scale, found.steps[0]), grid.inverse());
            let y = f64::from(-units(-grid.minimum(), found.steps[1]));
            let (y, zero) = if self.has_minimums() { (y, 0.0) } else { (0.0, grid.zero) };
            for (value, weight) in values.iter().zip(weights) {
                let x = f64::from(scale * (grid.round_by(*value, inverse) - zero));
                let (value, weight) = (f64::from(*value), f64::from(*weight));
                xx += weight * x * x;
                xy += weight * x * y;
                yy += weight * y * y;
                xv += weight * x * value;
                yv += weight * y * value;
            }
        }
        let determinant = xx * yy - xy * xy;
        if determinant > 1e-9 * xx * yy {
            let (a, b) = ((yy * xv - xy * yv) / determinant, (xx * yv - xy * xv) / determinant);
            let of = |new: f64, old: f32| if new > 0.0 { rounded(new as f32) } else { old };
            return [of(a, found.steps[0]), of(b, found.steps[1])];
        }
        match xx > 0.0 {
            true => [rounded(((xv - f64::from(found.steps[1]) * xy) / xx) as f32), found.steps[1]],
            false => found.steps,
        }
    }
}

/// A step as it is stored.
fn rounded(step: f32) -> f32 {
    let step = f16::from_f32(step).to_f32();
    if step.is_finite() { step } else { f16::MAX.to_f32().copysign(step) }
}
