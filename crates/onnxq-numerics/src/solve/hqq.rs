//! Half-quadratic quantization: moves each block's grid so that outliers count less.
//!
//! Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023. It
//! minimises `Σ |w - ŵ|^p`, `p < 1`, by turns: outliers `e` are split off the error by a
//! shrinking function, then a grid is fitted to `w - e` by least squares. Unlike the original,
//! zeros are integers (so that 0 stays 0), the scale is fitted too, each block stops on its own,
//! and no grid is taken whose squared error is much above round-to-nearest's.

use ndarray::ArrayView2;
use pulp::Arch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Prepared, Solver,
    blocks::quantize,
    grid::{Grid, ROUND, grid, stored_scale},
    sums::{LANES, total},
};
use crate::{
    scheme::{Range, Scheme},
    specs::{Settings, Wrong, within},
};
use onnxq_ir::tensor::{DType, QMatrix, QShape, ZeroPoints};

/// Half-quadratic quantization; needs no data. Errors are measured in steps of the grid, so that
/// settings do not depend on how large the weights are.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hqq {
    /// How often each block's grid is moved at most; it stops when that no longer helps.
    /// Default: 20.
    pub iterations: usize,
    /// The norm to minimise, 0.1 to 1: the lower, the less outliers count. Default: 0.7.
    pub p: f32,
    /// How small an error must be to count as none: the larger, the smaller. Default: 10.
    pub beta: f32,
    /// What beta is multiplied with after each iteration; at least 1. Default: 1.01.
    pub kappa: f32,
}

impl Default for Hqq {
    fn default() -> Hqq {
        Hqq { iterations: 20, p: 0.7, beta: 10.0, kappa: 1.01 }
    }
}

impl Settings for Hqq {
    fn check(&self) -> Result<(), Wrong> {
        within("iterations", self.iterations, 0..=1000)?;
        within("p", self.p, 0.1..=1.0)?;
        within("beta", self.beta, 1e-3..=1e6)?;
        within("kappa", self.kappa, 1.0..=100.0)
    }
}

impl Solver for Hqq {
    fn fits(&self, scheme: &Scheme) -> Result<(), &'static str> {
        match scheme.is_plain() {
            true => Ok(()),
            false => Err("it knows no minimums and no scales that are integers: take mse or gptq"),
        }
    }

    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        _: Option<&Prepared>,
    ) -> QMatrix {
        quantize(rows, (scheme, shape), None, |values, _| {
            Arch::new().dispatch(
                #[inline(always)]
                || self.fit(values, scheme, shape.scale),
            )
        })
    }
}

/// Scales that blocks start from, relative to round-to-nearest's.
const STARTS: [f32; 5] = [1.0, 0.94, 0.88, 0.8, 0.7];

/// Sums over a block of quantized values `q` and of what they should stand for, `t`, in steps.
#[derive(Clone, Copy)]
struct Sums {
    n: f64,
    /// `Σ |v / scale - q|^p`.
    loss: f64,
    /// `Σ (v / scale - q)²`.
    square: f64,
    t: f64,
    q: f64,
    tq: f64,
    qq: f64,
}

impl Hqq {
    #[inline(always)]
    fn fit(&self, values: &[f32], scheme: &Scheme, stored: DType) -> Grid {
        let plain = grid(values, scheme, stored);
        if plain.inverse() == 0.0 || !plain.scale.is_finite() {
            return plain;
        }
        let sums = self.sums(values, &plain, self.beta);
        let unit = plain.scale.abs();
        let limit = sums.square * MOST_SQUARE;
        let mut best = Best { grid: plain, loss: sums.loss, unit, limit };
        let flips = scheme.zero_points == ZeroPoints::Symmetric && scheme.range == Range::Full;
        let signs: &[f32] = if flips { &[1.0, -1.0] } else { &[1.0] };
        let mut start = (f64::INFINITY, plain);
        for sign in signs {
            for factor in STARTS {
                let scale = stored_scale(plain.scale * factor * sign, stored);
                let from = plain.with(scale, plain.zero);
                if let Some((_, loss)) = self.trial(values, from, self.beta, &mut best)
                    && loss < start.0
                {
                    start = (loss, from);
                }
            }
        }
        self.descend(values, start, scheme.zero_points, stored, &mut best);
        best.grid
    }

    /// Moves a grid as long as that helps.
    #[inline(always)]
    fn descend(
        &self,
        values: &[f32],
        (_, mut grid): (f64, Grid),
        zero_points: ZeroPoints,
        stored: DType,
        best: &mut Best,
    ) {
        let (mut beta, mut own) = (self.beta, f64::INFINITY);
        for _ in 0..=self.iterations {
            let Some((sums, loss)) = self.trial(values, grid, beta, best) else { break };
            if loss >= own * ENOUGH {
                break;
            }
            own = loss;
            let fitted = sums.fitted(grid, zero_points);
            grid = fitted.with(stored_scale(fitted.scale, stored), fitted.zero);
            beta *= self.kappa;
        }
    }

    /// What the next grid is made of, and the loss of this one; `None` if no scale is like its.
    #[inline(always)]
    fn trial(&self, values: &[f32], grid: Grid, beta: f32, best: &mut Best) -> Option<(Sums, f64)> {
        if grid.inverse() == 0.0 || !grid.scale.is_finite() {
            return None;
        }
        let sums = self.sums(values, &grid, beta);
        let factor = f64::from(grid.scale.abs()) / f64::from(best.unit);
        let loss = sums.loss * factor.powf(f64::from(self.p));
        if loss < best.loss && sums.square * factor * factor <= best.limit {
            (best.grid, best.loss) = (grid, loss);
        }
        Some((sums, loss))
    }

    /// What one look at the values yields.
    #[inline(always)]
    fn sums(&self, values: &[f32], grid: &Grid, beta: f32) -> Sums {
        let mut lanes = [[0.0; LANES]; 6];
        let mut run = Run::default();
        for values in values.chunks(RUN) {
            run.fill(values, grid, self.p, beta.recip());
            for (sum, part) in lanes.iter_mut().zip(run.sums(values.len())) {
                for lane in 0..LANES {
                    sum[lane] += part[lane];
                }
            }
        }
        let [loss, square, t, q, tq, qq] = lanes.map(total);
        Sums { n: values.len() as f64, loss, square, t, q, tq, qq }
    }
}

/// How much of round-to-nearest's squared error a grid may cost: few large errors are worth many
/// small ones, but not at any price.
const MOST_SQUARE: f64 = 1.05;
/// An iteration that takes less than this off the loss is the last.
const ENOUGH: f64 = 0.9995;
/// Values that are worked on at once.
const RUN: usize = 128;

/// The best grid so far.
struct Best {
    grid: Grid,
    /// `Σ |v - ŵ|^p` in units of `unit`, round-to-nearest's scale.
    loss: f64,
    unit: f32,
    /// The most that `Σ (v - ŵ)²` may be, in the same units.
    limit: f64,
}

/// Values in steps, what of them is left to quantized values, the quantized values counted from
/// zero, and powers of errors. One loop fills them value by value, others add them up: compilers
/// make vectors of that.
struct Run {
    at: [f32; RUN],
    t: [f32; RUN],
    q: [f32; RUN],
    loss: [f32; RUN],
}

impl Default for Run {
    #[inline(always)]
    fn default() -> Run {
        let none = [0.0; RUN];
        Run { at: none, t: none, q: none, loss: none }
    }
}

impl Run {
    #[inline(always)]
    fn fill(&mut self, values: &[f32], grid: &Grid, p: f32, inverse_beta: f32) {
        let inverse = grid.inverse();
        let (low, high) = (grid.low - grid.zero, grid.high - grid.zero);
        // The zeros that pad it are quantized to zero and have no error: they add nothing to any sum.
        let count = values.len().next_multiple_of(LANES).min(RUN);
        self.at[..values.len()].copy_from_slice(values);
        self.at[values.len()..count].fill(0.0);
        let (at, t) = (&mut self.at[..count], &mut self.t[..count]);
        let (q, loss) = (&mut self.q[..count], &mut self.loss[..count]);
        for it in 0..count {
            at[it] *= inverse;
            let integer = (at[it] + ROUND) - ROUND;
            let integer = if integer < low { low } else { integer };
            q[it] = if integer > high { high } else { integer };
            let error = at[it] - q[it];
            let size = error.abs();
            let size = if size < TINY { TINY } else { size };
            let slope = power(size, p - 1.0);
            loss[it] = slope * size;
            // |e|^(p - 1) / beta of it is taken for the grid's; the rest is an outlier's.
            let outlier = size - slope * inverse_beta;
            let outlier = if outlier < 0.0 { 0.0 } else { outlier };
            t[it] = at[it] - outlier.copysign(error);
        }
    }

    /// In the order of [`Sums`].
    #[inline(always)]
    fn sums(&self, count: usize) -> [[f32; LANES]; 6] {
        let count = count.div_ceil(LANES);
        let (at, t) = (self.at.as_chunks::<LANES>().0, self.t.as_chunks::<LANES>().0);
        let (q, loss) = (self.q.as_chunks::<LANES>().0, self.loss.as_chunks::<LANES>().0);
        let mut sums = [[0.0; LANES]; 6];
        for it in 0..count {
            for lane in 0..LANES {
                let (at, t, q) = (at[it][lane], t[it][lane], q[it][lane]);
                sums[0][lane] += loss[it][lane];
                sums[1][lane] += (at - q) * (at - q);
                sums[2][lane] += t;
                sums[3][lane] += q;
                sums[4][lane] += t * q;
                sums[5][lane] += q * q;
            }
        }
        sums
    }
}

impl Sums {
    /// The grid of least squares for these quantized values: the zero of an affine fit, made an
    /// integer, then the scale that suits it.
    #[inline(always)]
    fn fitted(&self, grid: Grid, zero_points: ZeroPoints) -> Grid {
        let mut shift = 0.0;
        let variance = self.n * self.qq - self.q * self.q;
        if zero_points == ZeroPoints::Asymmetric && variance > 0.0 {
            let slope = (self.n * self.tq - self.t * self.q) / variance;
            let offset = (self.t - slope * self.q) / self.n;
            let zero = (f64::from(grid.zero) - offset / slope).round() as f32;
            let zero = if zero.is_finite() { zero } else { grid.zero };
            shift = f64::from(grid.zero - zero.clamp(grid.low, grid.high));
        }
        // Quantized values stay as they are; counted from the new zero they are larger by the
        // shift.
        let across = self.tq + shift * self.t;
        let square = self.qq + shift * (2.0 * self.q + shift * self.n);
        let factor = if square > 0.0 && across > 0.0 { across / square } else { 1.0 };
        let scale = (f64::from(grid.scale) * factor) as f32;
        grid.with(scale, grid.zero - shift as f32)
    }
}

/// Errors below this are none; its powers are still ordinary floats.
const TINY: f32 = 1e-20;

/// `x^p` for positive, normal `x`, to about six digits: the same bits on every machine, and in
/// vectors, which the C library's `powf` does not offer.
#[inline(always)]
fn power(x: f32, p: f32) -> f32 {
    // x = 2^exponent · mantissa, with the mantissa in 0.707..1.414.
    let bits = x.to_bits() as i32;
    let exponent = (bits - 0x3f35_04f3) >> 23;
    let mantissa = f32::from_bits((bits - (exponent << 23)) as u32);
    // ln m = 2 artanh((m - 1) / (m + 1)).
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let tt = t * t;
    let ln = 2.0 * t * (1.0 + tt * (1.0 / 3.0 + tt * (0.2 + tt * (1.0 / 7.0 + tt / 9.0))));
    let log2 = exponent as f32 + ln * std::f32::consts::LOG2_E;
    // 2^y = 2^whole · e^f.
    let y = log2 * p;
    let shifted = y + ROUND;
    let whole = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let f = (y - (shifted - ROUND)) * std::f32::consts::LN_2;
    let series = 1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0));
    let exp = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * series)));
    exp * f32::from_bits(((whole + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scheme::Granularity, solve::laws::gaussian};

    #[test]
    fn powers_are_accurate() {
        for p in [-0.9, -0.3, 0.1, 0.7, 1.0] {
            for it in -60..60 {
                let x = 1.37f32.powi(it);
                let exact = f64::from(x).powf(f64::from(p));
                assert!((f64::from(power(x, p)) / exact - 1.0).abs() < 1e-5, "{x}^{p}");
            }
        }
    }

    #[test]
    fn every_instruction_set_finds_the_same_grid() {
        let values = gaussian(3000);
        for zero_points in [ZeroPoints::Symmetric, ZeroPoints::Asymmetric] {
            for length in [37, 150] {
                let granularity = Granularity::Block(length);
                let scheme = Scheme {
                    bits: 4,
                    zero_points,
                    granularity,
                    range: Range::Full,
                    superblock: None,
                };
                let shape = scheme.shape(1, values.len(), DType::F32);
                let view = ArrayView2::from_shape((1, values.len()), &values).expect("one row");
                let fast = Hqq::default().solve(view, &scheme, shape, None);
                for (block, values) in values.chunks(length).enumerate() {
                    let plain = Hqq::default().fit(values, &scheme, DType::F32);
                    assert_eq!(fast.scales[(0, block)].to_bits(), plain.scale.to_bits());
                    assert_eq!(fast.zero_points[(0, block)], plain.zero as u8);
                }
            }
        }
    }
}
