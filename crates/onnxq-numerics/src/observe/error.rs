//! The error that quantized values make on what was seen, values of a bin being evenly spread.

use super::{Bin, RangeStats};
use crate::affine::Interval;

/// The mean of `|x - x̂|^norm` over all values, `x̂` being the nearest of `levels` quantized values
/// that span `interval`, zero being one of them.
pub fn expected_error(stats: &RangeStats, interval: Interval, levels: u32, norm: f64) -> f64 {
    let bins: Vec<Bin> = stats.histogram.bins().collect();
    let grid = Grid::new(interval, levels, norm);
    let sum: f64 = bins.iter().map(|it| it.count as f64 * grid.mean(it)).sum();
    sum / stats.histogram.count().max(1) as f64
}

/// Multiples of `step` from `lo` to `hi`.
pub(super) struct Grid {
    step: f64,
    /// The least and the greatest multiple.
    lo: f64,
    hi: f64,
    norm: f64,
    /// The error of one step, integrated, if a step were 1.
    period: f64,
}

impl Grid {
    pub(super) fn new(interval: Interval, levels: u32, norm: f64) -> Grid {
        let (from, to) = (f64::from(interval.lo), f64::from(interval.hi));
        let most = f64::from(levels.max(2) - 1);
        let step = if to > from { (to - from) / most } else { 1.0 };
        let lo = (from / step).round_ties_even();
        let mut grid = Grid { step, lo, hi: lo + most, norm, period: 0.0 };
        if to <= from {
            grid.hi = lo;
        }
        grid.period = 2.0 * grid.power(0.5);
        grid
    }

    /// The mean error of the values of a bin.
    pub(super) fn mean(&self, bin: &Bin) -> f64 {
        let (from, to) = (bin.lo / self.step, bin.hi / self.step);
        let width = to - from;
        let mean = if width > 1e-6 * from.abs().max(to.abs()).max(1e-300) {
            (self.integral(to) - self.integral(from)) / width
        } else {
            let middle = from + width / 2.0;
            let off = (middle - middle.round_ties_even().clamp(self.lo, self.hi)).abs();
            if self.norm == 2.0 { off * off } else { off.powf(self.norm) }
        };
        let unit = if self.norm == 2.0 { self.step * self.step } else { self.step.powf(self.norm) };
        mean.max(0.0) * unit
    }

    /// The error integrated from zero to `at`, in steps.
    fn integral(&self, at: f64) -> f64 {
        let integer = at.round_ties_even().clamp(self.lo, self.hi);
        let off = at - integer;
        integer * self.period + self.power(off.abs()).copysign(off)
    }

    /// The integral of `x^norm` from zero.
    fn power(&self, x: f64) -> f64 {
        if self.norm == 2.0 {
            return x * x * x / 3.0;
        }
        x.powf(self.norm + 1.0) / (self.norm + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_values_one_by_one() {
        let values: Vec<f32> =
            (0..20_000).map(|it| ((it * 7919) % 20_011) as f32 / 4e3 - 1.5).collect();
        let mut stats = RangeStats::default();
        stats.add(&values).unwrap();
        for (lo, hi) in [(-1.5, 3.5), (-1.0, 2.0), (0.0, 3.0), (-0.3, 0.2)] {
            for (levels, norm) in [(16, 2.0), (256, 2.0), (256, 1.0), (128, 2.4)] {
                let step = f64::from(hi - lo) / f64::from(levels - 1);
                let low = (f64::from(lo) / step).round_ties_even();
                let error = |it: &f32| {
                    let at = f64::from(*it) / step;
                    let integer = at.round_ties_even().clamp(low, low + f64::from(levels - 1));
                    ((at - integer).abs() * step).powf(norm)
                };
                let expected = values.iter().map(error).sum::<f64>() / values.len() as f64;
                let found = expected_error(&stats, Interval { lo, hi }, levels, norm);
                assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
            }
        }
    }
}
