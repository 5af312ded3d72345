//! The grid of least squared error of a block that has a scale and a minimum, both floats: a straight line
//! through values over their integers.
//!
//! Integers come from ranges of several widths around the middle of the values; each choice of integers
//! has a line of least squares, and the line that leaves least is rounded to again as long as that helps.

use pulp::Arch;

use super::{
    grid::{Grid, ROUND, grid, minimum_grid},
    search::factors,
    sums,
};
use crate::scheme::Scheme;
use onnxq_ir::tensor::DType;

/// Lines that are followed at once.
const LANES: usize = 16;
/// How often they are rounded to, the first time included.
const ROUNDS: usize = 6;
/// How often the best of them is followed further.
const STEPS: usize = 4;

type Lanes = [f32; LANES];

/// Never worse than round-to-nearest's.
pub(super) fn fit(values: &[f32], weights: &[f32], scheme: &Scheme, stored: DType) -> Grid {
    let plain = grid(values, scheme, stored);
    if plain.inverse() == 0.0 || !plain.scale.is_finite() || plain.scale < 0.0 {
        return plain;
    }
    Arch::new().dispatch(
        #[inline(always)]
        || best(values, weights, plain, scheme, stored),
    )
}

#[inline(always)]
fn best(values: &[f32], weights: &[f32], plain: Grid, scheme: &Scheme, stored: DType) -> Grid {
    let mut best = (sums::error(values, weights, &plain), plain);
    let mut consider = |line: Option<Line>| {
        let Line { scale, start } = line?;
        let grid = minimum_grid(scheme).shifted(scale, start, scheme, stored);
        if grid.inverse() == 0.0 || !grid.zero.is_finite() {
            return None;
        }
        let error = sums::error(values, weights, &grid);
        // What is no number is no gain.
        let is_better = error < best.0;
        if is_better {
            best = (error, grid);
        }
        is_better.then_some(grid)
    };
    let below = scheme.superblock.is_some();
    let mut last = consider(first(values, weights, &plain, below));
    for _ in 0..STEPS {
        let Some(grid) = last else { break };
        last = consider(through(values, weights, &grid, below));
    }
    best.1
}

/// What the integer 0 stands for, and how much more each of the next ones.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    start: f32,
}

/// The line that leaves least of those that begin with ranges of several widths around the middle;
/// `below`: it may not start above zero.
#[inline(always)]
fn first(values: &[f32], weights: &[f32], plain: &Grid, below: bool) -> Option<Line> {
    let high = plain.high;
    let middle = plain.value((plain.low + high) / 2.0);
    // With more integers less of the range is ever given up.
    let (from, to) = if high < 4.0 { factors(high) } else { (0.68, 1.08) };
    let factor = |at: usize| from + (to - from) / (LANES - 1) as f32 * at as f32;
    let scales: Lanes = std::array::from_fn(|at| plain.scale * factor(at));
    // Of `value - middle`, which keeps sums exact.
    let mut lines = scales.map(|scale| Line { scale, start: -scale * high / 2.0 });
    let (mut w, mut v, mut vv) = (0.0f64, 0.0f64, 0.0f64);
    for (value, weight) in values.iter().zip(weights) {
        let (value, weight) = (f64::from(value - middle), f64::from(*weight));
        w += weight;
        v += weight * value;
        vv += weight * value * value;
    }
    let mut best = (f64::INFINITY, None);
    for _ in 0..ROUNDS {
        let [q, qq, qv] = rounded(values, weights, middle, high, &lines);
        for it in 0..LANES {
            let [q, qq, qv] = [q[it], qq[it], qv[it]].map(f64::from);
            let most = below.then_some(f64::from(-middle));
            let Some((scale, start)) = least_squares([w, q, qq, v, qv], most) else { continue };
            let left = vv - 2.0 * (scale * qv + start * v)
                + scale * (scale * qq + 2.0 * start * q)
                + start * start * w;
            lines[it] = Line { scale: scale as f32, start: start as f32 };
            if left < best.0 {
                best = (left, Some(lines[it]));
            }
        }
    }
    best.1.map(|it| Line { start: it.start + middle, ..it })
}

/// Of the integers `q` that values get on each line: `Σwq, Σwq², Σwqv`.
#[inline(always)]
fn rounded(
    values: &[f32],
    weights: &[f32],
    middle: f32,
    high: f32,
    lines: &[Line; LANES],
) -> [Lanes; 3] {
    let inverse: Lanes = lines.map(|it| it.scale.recip());
    let offset: Lanes = std::array::from_fn(|it| -lines[it].start * inverse[it]);
    let [mut q, mut qq, mut qv] = [[0.0f32; LANES]; 3];
    for (value, weight) in values.iter().zip(weights) {
        let value = value - middle;
        for it in 0..LANES {
            let at = (value * inverse[it] + offset[it] + ROUND) - ROUND;
            let at = if at < 0.0 { 0.0 } else { at };
            let at = if at > high { high } else { at };
            q[it] += weight * at;
            qq[it] += weight * at * at;
            qv[it] += weight * at * value;
        }
    }
    [q, qq, qv]
}

/// The line through the integers of a grid.
#[inline(always)]
fn through(values: &[f32], weights: &[f32], grid: &Grid, below: bool) -> Option<Line> {
    let mut sums = [0.0f64; 5];
    let inverse = grid.inverse();
    for (value, weight) in values.iter().zip(weights) {
        let q = f64::from(grid.round_by(*value, inverse));
        let (value, weight) = (f64::from(*value), f64::from(*weight));
        let terms = [1.0, q, q * q, value, q * value];
        sums.iter_mut().zip(terms).for_each(|(sum, it)| *sum += weight * it);
    }
    let (scale, start) = least_squares(sums, below.then_some(0.0))?;
    Some(Line { scale: scale as f32, start: start as f32 })
}

/// Slope and start of the line through `v` over `q`, of `Σw, Σwq, Σwq², Σwv, Σwqv`; it starts at `most`
/// or below. `None` if it does not rise.
#[inline(always)]
fn least_squares([w, q, qq, v, qv]: [f64; 5], most: Option<f64>) -> Option<(f64, f64)> {
    let determinant = w * qq - q * q;
    let free = (determinant > 1e-9 * w * qq).then(|| {
        let scale = (w * qv - q * v) / determinant;
        (scale, (v - scale * q) / w)
    });
    let found = match (free, most) {
        (Some((_, start)), Some(most)) if start > most => None,
        (found, _) => found,
    };
    let bound = || most.filter(|_| qq > 0.0).map(|most| ((qv - most * q) / qq, most));
    found.or_else(bound).filter(|it| it.0 > 0.0)
}
