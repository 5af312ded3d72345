//! Looks for the grid of least squared error: which part of a block's range is worth its codes.
//!
//! A few hundred grids are tried per block, so the loop over a block's values is written for
//! SIMD: fixed lanes, no branches, and sums in the order of the lanes, so that every instruction
//! set yields the same bits.

use pulp::Arch;

use super::grid::{Grid, ROUND, Ties, grid, stored_scale};
use crate::{
    quant::scheme::{Range, Scheme},
    tensor::{DType, Zeros},
};

pub(super) const LANES: usize = 8;
/// Positions of zero (or signs of the scale) that are tried with each scale.
const WINDOWS: usize = 4;
/// Rounds of "least-squares scale for these codes, then the codes for that scale".
const REFINEMENTS: usize = 4;

/// The grid of least weighted squared error for a block.
///
/// Never worse than [`grid`]'s. Without `weights` all values count the same; a weight is not
/// negative.
pub(super) fn fit(values: &[f32], weights: Option<&[f32]>, scheme: &Scheme, stored: DType) -> Grid {
    let ones;
    let weights = match weights {
        Some(it) => it,
        None => {
            ones = vec![1.0; values.len()];
            &ones
        }
    };
    Arch::new().dispatch(
        #[inline(always)]
        || best(values, weights, scheme, stored),
    )
}

/// The body of [`fit`], compiled once for each instruction set.
#[inline(always)]
fn best(values: &[f32], weights: &[f32], scheme: &Scheme, stored: DType) -> Grid {
    let plain = grid(values, scheme, stored);
    let step = plain.scale.abs();
    if !(step > 0.0 && step.is_finite() && step.recip().is_finite()) {
        return plain;
    }
    let search = Search::new(values, weights, plain, scheme, stored);
    let found = search.refine(search.widest());
    match found {
        Some(found) if error(values, weights, &found) < error(values, weights, &plain) => found,
        _ => plain,
    }
}

/// Factors of the plain scale: from, to, and how many. Few codes want to be spent on the bulk of
/// the values; with many of them clipping hardly pays.
fn factors(codes: f32) -> (f32, f32, usize) {
    match codes {
        ..4.0 => (0.2, 1.3, 23),
        ..16.0 => (0.46, 1.18, 13),
        _ => (0.88, 1.03, 6),
    }
}

/// Codes counted from zero: `low..=high`, and what grid that is.
#[derive(Clone, Copy)]
struct Window {
    low: f32,
    high: f32,
    zero: f32,
    sign: f32,
}

/// A grid that was tried.
#[derive(Clone, Copy)]
struct Trial {
    window: Window,
    /// Of the grid itself, and with the scale that suits its codes best.
    error: f64,
    best_error: f64,
    step: f32,
    best_step: f32,
}

struct Search<'a> {
    values: &'a [f32],
    weights: &'a [f32],
    plain: Grid,
    stored: DType,
    symmetric: bool,
    /// Whether a scale may be negative.
    signed: bool,
    /// Middle of the values' range, which holds zero.
    center: f32,
    /// `Σ w v²` in units of the plain step.
    energy: f64,
}

impl<'a> Search<'a> {
    #[inline(always)]
    fn new(
        values: &'a [f32],
        weights: &'a [f32],
        plain: Grid,
        scheme: &Scheme,
        stored: DType,
    ) -> Search<'a> {
        let symmetric = scheme.zeros == Zeros::Symmetric;
        let signed = symmetric && scheme.range == Range::Full;
        let center = ((plain.low + plain.high) / 2.0 - plain.zero) * plain.scale;
        let energy = energy(values, weights, plain.scale.recip());
        Search { values, weights, plain, stored, symmetric, signed, center, energy }
    }

    /// The best of the scales all over the range worth trying.
    #[inline(always)]
    fn widest(&self) -> Option<Trial> {
        let (from, to, count) = factors(self.plain.high - self.plain.low);
        let mut best: Option<Trial> = None;
        for at in 0..count {
            let factor = from + (to - from) * at as f32 / (count - 1) as f32;
            let step = self.plain.scale.abs() * factor;
            let zero = (self.plain.low + self.plain.high) / 2.0 - self.center / step;
            best = better(best, self.scan(step, zero));
        }
        best
    }

    /// Alternates between the best scale for given codes and the best codes for a given scale.
    #[inline(always)]
    fn refine(&self, start: Option<Trial>) -> Option<Grid> {
        let mut at = start?;
        let mut best: Option<Trial> = None;
        for _ in 0..REFINEMENTS {
            let step = stored_scale(at.best_step, self.stored);
            let Some(next) = self.scan(step, at.window.zero) else { break };
            if best.is_some_and(|it| next.error >= it.error) {
                break;
            }
            (best, at) = (Some(next), next);
        }
        let Trial { window, step, .. } = best?;
        Some(Grid {
            scale: step * window.sign,
            zero: window.zero,
            low: self.plain.low,
            high: self.plain.high,
            ties: Ties::Even,
        })
    }

    /// Where zero may lie, around `near`; or which signs a scale may have.
    #[inline(always)]
    fn windows(&self, near: f32) -> [Window; WINDOWS] {
        let (low, high, middle) = (self.plain.low, self.plain.high, self.plain.zero);
        let below = near.floor() - (WINDOWS / 2 - 1) as f32;
        std::array::from_fn(|at| {
            if self.symmetric {
                let (low, high) = (low - middle, high - middle);
                match at % 2 == 1 && self.signed {
                    true => Window { low: -high, high: -low, zero: middle, sign: -1.0 },
                    false => Window { low, high, zero: middle, sign: 1.0 },
                }
            } else {
                let zero = (below + at as f32).clamp(low, high);
                Window { low: low - zero, high: high - zero, zero, sign: 1.0 }
            }
        })
    }

    /// Tries a step with several windows at once; `None` if no scale is like it.
    #[inline(always)]
    fn scan(&self, step: f32, near: f32) -> Option<Trial> {
        let inverse = step.recip();
        if !(step > 0.0 && step.is_finite() && inverse.is_finite()) {
            return None;
        }
        let windows = self.windows(near);
        let scaling = f64::from(self.plain.scale.abs()) / f64::from(step);
        let energy = self.energy * scaling * scaling;
        match (self.symmetric, self.signed) {
            (true, false) => {
                self.pick(self.residuals::<1>(inverse, &windows), energy, step, &windows)
            }
            (true, true) => {
                self.pick(self.residuals::<2>(inverse, &windows), energy, step, &windows)
            }
            _ => self.pick(self.residuals::<WINDOWS>(inverse, &windows), energy, step, &windows),
        }
    }

    /// Per window `Σ w d²` and `Σ w d q`: `q` is the code counted from zero, `d` what of `v / step`
    /// it leaves.
    #[inline(always)]
    fn residuals<const N: usize>(&self, inverse: f32, windows: &[Window]) -> [[f64; 2]; N] {
        let bounds: [(f32, f32); N] = std::array::from_fn(|it| (windows[it].low, windows[it].high));
        let mut sums = [[[0.0; LANES]; 2]; N];
        let (values, value_rest) = self.values.as_chunks::<LANES>();
        let (weights, weight_rest) = self.weights.as_chunks::<LANES>();
        for (values, weights) in values.iter().zip(weights) {
            add_residuals(values, weights, inverse, &bounds, &mut sums);
        }
        let (values, weights) = (padded(value_rest), padded(weight_rest));
        add_residuals(&values, &weights, inverse, &bounds, &mut sums);
        sums.map(|it| it.map(total))
    }

    /// The trial with the least error among windows. With `q` fixed, `step (1 + D / B)` is the
    /// least-squares scale, `B = Σ w q²`, and it takes `D² / B` off the error.
    #[inline(always)]
    fn pick<const N: usize>(
        &self,
        sums: [[f64; 2]; N],
        energy: f64,
        step: f32,
        windows: &[Window],
    ) -> Option<Trial> {
        let unit = f64::from(step) * f64::from(step);
        let mut best = None;
        for (window, [error, slope]) in windows.iter().zip(sums) {
            let codes = energy - 2.0 * slope - error;
            if codes <= 0.0 {
                continue;
            }
            let trial = Trial {
                window: *window,
                error: error * unit,
                best_error: (error - slope * slope / codes) * unit,
                step,
                best_step: (f64::from(step) * (1.0 + slope / codes)) as f32,
            };
            best = better(best, Some(trial));
        }
        best
    }
}

#[inline(always)]
fn better(one: Option<Trial>, other: Option<Trial>) -> Option<Trial> {
    match (one, other) {
        (Some(a), Some(b)) if b.best_error < a.best_error => Some(b),
        (Some(a), _) => Some(a),
        (None, b) => b,
    }
}

#[inline(always)]
fn add_residuals<const N: usize>(
    values: &[f32; LANES],
    weights: &[f32; LANES],
    inverse: f32,
    bounds: &[(f32, f32); N],
    sums: &mut [[[f32; LANES]; 2]; N],
) {
    let at = values.map(|it| it * inverse);
    let rounded = at.map(|it| (it + ROUND) - ROUND);
    for ((low, high), [errors, slopes]) in bounds.iter().zip(sums) {
        for lane in 0..LANES {
            let code = if rounded[lane] < *low { *low } else { rounded[lane] };
            let code = if code > *high { *high } else { code };
            let rest = at[lane] - code;
            let weighted = weights[lane] * rest;
            errors[lane] += weighted * rest;
            slopes[lane] += weighted * code;
        }
    }
}

/// `Σ w v²`, in units of the step whose inverse it gets.
#[inline(always)]
fn energy(values: &[f32], weights: &[f32], inverse: f32) -> f64 {
    let mut sums = [0.0; LANES];
    let (values, value_rest) = values.as_chunks::<LANES>();
    let (weights, weight_rest) = weights.as_chunks::<LANES>();
    let rest = (padded(value_rest), padded(weight_rest));
    let whole = values.iter().zip(weights);
    for (values, weights) in whole.chain([(&rest.0, &rest.1)]) {
        for lane in 0..LANES {
            let at = values[lane] * inverse;
            sums[lane] += weights[lane] * at * at;
        }
    }
    total(sums)
}

/// `Σ w (v - ŵ)²` of the values that a grid's codes decode to.
#[inline(always)]
pub(super) fn error(values: &[f32], weights: &[f32], grid: &Grid) -> f64 {
    let mut sums = [0.0; LANES];
    let (values, value_rest) = values.as_chunks::<LANES>();
    let (weights, weight_rest) = weights.as_chunks::<LANES>();
    let rest = (padded(value_rest), padded(weight_rest));
    let inverse = grid.inverse();
    let whole = values.iter().zip(weights);
    for (values, weights) in whole.chain([(&rest.0, &rest.1)]) {
        for lane in 0..LANES {
            let back = grid.value(grid.code_by(values[lane], inverse));
            let rest = f64::from(values[lane] - back);
            sums[lane] += f64::from(weights[lane]) * rest * rest;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// The last lanes of a block, and zeros after them.
#[inline(always)]
pub(super) fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

#[inline(always)]
pub(super) fn total(lanes: [f32; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes.map(f64::from);
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{scheme::Granularity, solve::laws::gaussian};

    #[test]
    fn every_instruction_set_finds_the_same_grid() {
        let values = gaussian(3000);
        let weights: Vec<f32> = values.iter().rev().map(|it| it.abs()).collect();
        for bits in [2, 4, 8] {
            for zeros in [Zeros::Symmetric, Zeros::Asymmetric] {
                let granularity = Granularity::Channel;
                let scheme = Scheme { bits, zeros, granularity, range: Range::Full };
                for (values, weights) in values.chunks(37).zip(weights.chunks(37)) {
                    let fast = fit(values, Some(weights), &scheme, DType::F32);
                    let plain = best(values, weights, &scheme, DType::F32);
                    assert_eq!(fast.scale.to_bits(), plain.scale.to_bits());
                    assert_eq!(fast.zero, plain.zero);
                }
            }
        }
    }

    #[test]
    fn nothing_is_left_of_an_error_that_a_grid_can_avoid() {
        // Codes -8..7 times 0.5, but one value that calls for a wider range.
        let values: Vec<f32> = (-8..8).map(|it| it as f32 * 0.5).collect();
        let (zeros, granularity) = (Zeros::Symmetric, Granularity::Channel);
        let scheme = Scheme { bits: 4, zeros, granularity, range: Range::Full };
        let mut far = values.clone();
        far.push(5.5);
        let mut weights = vec![1.0; 16];
        weights.push(0.0);
        let grid = fit(&far, Some(&weights), &scheme, DType::F32);
        assert!(error(&values, &weights[..16], &grid) < 1e-9, "{grid:?}");
    }
}
