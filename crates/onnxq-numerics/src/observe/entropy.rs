//! The least information lost, after Migacz, "8-bit Inference with TensorRT", GTC 2017.
//!
//! For a clipped range, `P` is the distribution of the values with what is clipped moved to the
//! ends, and `Q` what is left of it when all values of a quantized value are the same. The range
//! with the least Kullback-Leibler divergence of `Q` from `P` is chosen. Both are taken at 8 bins
//! per quantized value of the range in question, 2048 for 8 bits, so outliers do not make the bins
//! wider; and both ends are searched, not one magnitude. Zeros are left out: they are exact in
//! every range. What is clipped must be rare: of values that are spikes, as those of images are, a
//! spike at an end would seem cheap to give up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bin, Observer, RangeStats, search::search};
use crate::{affine::Interval, specs::Settings};

/// Bins of the distributions for each quantized value.
const PER_LEVEL: usize = 8;
/// The largest share of values that may be clipped.
const MOST_CLIPPED: f64 = 0.005;

/// Least Kullback-Leibler divergence of the quantized values from the values.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Entropy {}

impl Settings for Entropy {}

impl Observer for Entropy {
    fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval {
        let zero = |it: &Bin| it.lo == 0.0 && it.hi == 0.0;
        let bins: Vec<Bin> = stats.histogram.bins().filter(|it| !zero(it)).collect();
        search(stats.whole(), symmetric, |it| divergence(&bins, it, levels as usize))
    }
}

/// Of the quantized from the clipped distribution, in nats; infinite if too much is clipped, or if a
/// quantized value of clipped values stands for no others.
fn divergence(bins: &[Bin], interval: Interval, levels: usize) -> f64 {
    let (mut masses, [below, above]) = spread(bins, interval, levels * PER_LEVEL);
    let inside: f64 = masses.iter().sum();
    let total = inside + below + above;
    if below + above > MOST_CLIPPED * total {
        return f64::INFINITY;
    }
    let last = masses.len() - 1;
    let merged: Vec<f64> = masses.chunks_exact(PER_LEVEL).map(|it| it.iter().sum()).collect();
    masses[0] += below;
    masses[last] += above;
    let mut sum = 0.0;
    for (bins, mass) in masses.chunks_exact(PER_LEVEL).zip(merged) {
        let some = bins.iter().filter(|it| **it > 0.0).count();
        if some == 0 {
            continue;
        }
        if mass <= 0.0 {
            return f64::INFINITY;
        }
        let evenly = mass / some as f64 / inside;
        let term = |it: &f64| it / total * (it / total / evenly).ln();
        sum += bins.iter().filter(|it| **it > 0.0).map(term).sum::<f64>();
    }
    sum
}

/// How many values each of `count` equal parts of the interval has, those of a bin being evenly
/// spread; and how many lie below and above.
fn spread(bins: &[Bin], interval: Interval, count: usize) -> (Vec<f64>, [f64; 2]) {
    let (lo, hi) = (f64::from(interval.lo), f64::from(interval.hi));
    let per = count as f64 / (hi - lo);
    let (mut masses, mut outside) = (vec![0.0; count], [0.0; 2]);
    for bin in bins {
        let (from, to, values) = ((bin.lo - lo) * per, (bin.hi - lo) * per, bin.count as f64);
        if to <= 0.0 && from < 0.0 {
            outside[0] += values;
        } else if from >= count as f64 && to > count as f64 {
            outside[1] += values;
        } else {
            share(&mut masses, &mut outside, [from, to], values);
        }
    }
    (masses, outside)
}

/// Spreads the values of one bin, whose ends are given in parts.
fn share(masses: &mut [f64], outside: &mut [f64; 2], [from, to]: [f64; 2], values: f64) {
    let last = masses.len() - 1;
    let place = |at: f64| (at.max(0.0) as usize).min(last);
    let (first, end) = (place(from), place(to));
    let inside = from >= 0.0 && to <= masses.len() as f64;
    if first == end && inside {
        masses[first] += values;
        return;
    }
    let density = values / (to - from);
    outside[0] += density * (-from).max(0.0);
    outside[1] += density * (to - masses.len() as f64).max(0.0);
    for (at, mass) in masses.iter_mut().enumerate().take(end + 1).skip(first) {
        let (start, stop) = (from.max(at as f64), to.min((at + 1) as f64));
        *mass += density * (stop - start).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_lost() {
        let bin = |lo, hi, count| Bin { lo, hi, count };
        let bins = [bin(-3.0, -2.0, 4), bin(-1.5, -0.5, 4), bin(0.1, 0.1, 3), bin(0.5, 2.5, 8)];
        let (masses, outside) = spread(&bins, Interval { lo: -1.0, hi: 1.0 }, 4);
        assert_eq!(masses, [2.0, 0.0, 3.0, 2.0]);
        assert_eq!(outside, [6.0, 6.0]);
    }

    #[test]
    fn what_is_even_within_codes_loses_nothing() {
        let bins = [Bin { lo: 0.0, hi: 1.0, count: 4096 }];
        assert!(divergence(&bins, Interval { lo: 0.0, hi: 1.0 }, 256).abs() < 1e-12);
        assert!(divergence(&bins, Interval { lo: 0.0, hi: 0.998 }, 256) > 1e-3);
        assert_eq!(divergence(&bins, Interval { lo: 0.0, hi: 0.5 }, 256), f64::INFINITY);
    }
}
