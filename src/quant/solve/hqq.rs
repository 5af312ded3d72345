//! Half-quadratic quantization: moves each block's grid so that outliers count less.
//!
//! Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023. It
//! minimises `Σ |w - ŵ|^p`, `p < 1`, by turns: outliers `e` are split off the error by a
//! shrinking function, then a grid is fitted to `w - e` by least squares. Unlike the original,
//! zeros are integers (so that 0 stays 0), the scale is fitted too, and each block stops on its
//! own.

use ndarray::ArrayView2;
use pulp::Arch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Prepared, Solver,
    blocks::quantize,
    grid::{Grid, ROUND, Ties, grid, stored_scale},
    search::{LANES, padded, total},
};
use crate::{
    quant::scheme::{Range, Scheme},
    tensor::{DType, QMatrix, QShape, Zeros},
};

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

impl Solver for Hqq {
    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        extent: QShape,
        _: Option<&Prepared>,
    ) -> QMatrix {
        let settings = self.clamped();
        quantize(rows, extent, |values, _| {
            Arch::new().dispatch(
                #[inline(always)]
                || settings.fit(values, scheme, extent.scale),
            )
        })
    }
}

/// Scales that blocks start from, relative to round-to-nearest's.
const STARTS: [f32; 5] = [1.0, 0.94, 0.88, 0.8, 0.7];

/// Sums over a block of codes `q` and of what they should stand for, `t`, in steps.
#[derive(Clone, Copy)]
struct Sums {
    n: f64,
    /// `Σ |v / scale - q|^p`.
    loss: f64,
    t: f64,
    q: f64,
    tq: f64,
    qq: f64,
}

impl Hqq {
    fn clamped(self) -> Hqq {
        let within = |it: f32, low: f32, high: f32, default: f32| {
            if it.is_nan() { default } else { it.clamp(low, high) }
        };
        let default = Hqq::default();
        Hqq {
            iterations: self.iterations.min(1000),
            p: within(self.p, 0.1, 1.0, default.p),
            beta: within(self.beta, 1e-3, 1e6, default.beta),
            kappa: within(self.kappa, 1.0, 100.0, default.kappa),
        }
    }

    #[inline(always)]
    fn fit(&self, values: &[f32], scheme: &Scheme, stored: DType) -> Grid {
        let plain = grid(values, scheme, stored);
        if plain.inverse() == 0.0 || !plain.scale.is_finite() {
            return plain;
        }
        let flips = scheme.zeros == Zeros::Symmetric && scheme.range == Range::Full;
        let signs: &[f32] = if flips { &[1.0, -1.0] } else { &[1.0] };
        let unit = plain.scale.abs();
        let loss = |grid: &Grid| self.sums(values, grid, self.beta).loss(unit, grid, self.p);
        let plain = (loss(&plain), plain);
        let mut start = plain;
        for sign in signs {
            for factor in STARTS {
                let scale = stored_scale(plain.1.scale * factor * sign, stored);
                let from = Grid { scale, ties: Ties::Even, ..plain.1 };
                let trial = if from.inverse() == 0.0 { plain.0 } else { loss(&from) };
                if trial < start.0 {
                    start = (trial, from);
                }
            }
        }
        self.descend(values, start.1, start, scheme.zeros, stored, unit).1
    }

    /// Moves a grid as long as that helps; the better of it and `best`, with its loss.
    #[inline(always)]
    fn descend(
        &self,
        values: &[f32],
        mut grid: Grid,
        mut best: (f64, Grid),
        zeros: Zeros,
        stored: DType,
        unit: f32,
    ) -> (f64, Grid) {
        let (mut beta, mut own) = (self.beta, f64::INFINITY);
        for _ in 0..=self.iterations {
            grid.scale = stored_scale(grid.scale, stored);
            if grid.inverse() == 0.0 || !grid.scale.is_finite() {
                break;
            }
            let sums = self.sums(values, &grid, beta);
            let loss = sums.loss(unit, &grid, self.p);
            if loss >= own {
                break;
            }
            own = loss;
            if loss < best.0 {
                best = (loss, grid);
            }
            grid = sums.fitted(grid, zeros);
            beta *= self.kappa;
        }
        best
    }

    /// What the next grid is made of.
    #[inline(always)]
    fn sums(&self, values: &[f32], grid: &Grid, beta: f32) -> Sums {
        let inverse = grid.inverse();
        let mut lanes = [[0.0; LANES]; 5];
        let (whole, rest) = values.as_chunks::<LANES>();
        // The zeros that pad it have code zero and no error: they add nothing to any sum.
        let last = padded(rest);
        for values in whole.iter().chain([&last]) {
            for lane in 0..LANES {
                let at = values[lane] * inverse;
                let q = grid.code_by(values[lane], inverse) - grid.zero;
                let error = at - q;
                let size = error.abs().max(TINY);
                let power = power(size, self.p);
                // |e|^(p - 1) / beta of it is taken for the grid's; the rest is an outlier's.
                let outlier = (size - power / (size * beta)).max(0.0).copysign(error);
                let t = at - outlier;
                lanes[0][lane] += power;
                lanes[1][lane] += t;
                lanes[2][lane] += q;
                lanes[3][lane] += t * q;
                lanes[4][lane] += q * q;
            }
        }
        let [loss, t, q, tq, qq] = lanes.map(total);
        Sums { n: values.len() as f64, loss, t, q, tq, qq }
    }
}

impl Sums {
    /// `Σ |v - ŵ|^p` in units of `unit`.
    #[inline(always)]
    fn loss(&self, unit: f32, grid: &Grid, p: f32) -> f64 {
        self.loss * (f64::from(grid.scale.abs()) / f64::from(unit)).powf(f64::from(p))
    }

    /// The grid of least squares for these codes: the zero of an affine fit, made an integer,
    /// then the scale that suits it.
    #[inline(always)]
    fn fitted(&self, grid: Grid, zeros: Zeros) -> Grid {
        let mut shift = 0.0;
        let variance = self.n * self.qq - self.q * self.q;
        if zeros == Zeros::Asymmetric && variance > 0.0 {
            let slope = (self.n * self.tq - self.t * self.q) / variance;
            let offset = (self.t - slope * self.q) / self.n;
            let zero = (f64::from(grid.zero) - offset / slope).round() as f32;
            let zero = if zero.is_finite() { zero } else { grid.zero };
            shift = f64::from(grid.zero - zero.clamp(grid.low, grid.high));
        }
        // Codes stay as they are; counted from the new zero they are larger by the shift.
        let across = self.tq + shift * self.t;
        let square = self.qq + shift * (2.0 * self.q + shift * self.n);
        let factor = if square > 0.0 && across > 0.0 { across / square } else { 1.0 };
        let scale = (f64::from(grid.scale) * factor) as f32;
        Grid { scale, zero: grid.zero - shift as f32, ..grid }
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
