//! Summaries of many values, as JSON can hold them.

use super::figures::Interval;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A summary of one value per sample or token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Summary {
    pub mean: Option<f64>,
    pub median: Option<f64>,
    pub min: Option<f64>,
    pub p1: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    /// The 99.9th percentile.
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

impl Summary {
    /// `None` if there are no values.
    pub fn of(values: &[f32]) -> Option<Summary> {
        if values.is_empty() {
            return None;
        }
        let sum: f64 = values.iter().map(|it| f64::from(*it)).sum();
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |share| finite(percentile(&sorted, share));
        Some(Summary {
            mean: finite(sum / values.len() as f64),
            median: at(0.5),
            min: at(0.0),
            p1: at(0.01),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

/// Between two values the percentile is interpolated, as numpy does it.
pub fn percentile(sorted: &[f32], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[high]));
    a + (b - a) * (position - low as f64)
}

/// Between what the median of a distribution lies with 95 % confidence, by the order of `values` alone:
/// how many lie below the median is binomial (Conover, "Practical Nonparametric Statistics", 3.2). `None`
/// with fewer than 6.
pub fn median_interval(values: &[f64]) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    // Probability that exactly `k` of `n` lie below, then that at most `k` do.
    let mut exactly = 0.5f64.powi(i32::try_from(n).ok()?);
    let (mut at_most, mut k) = (exactly, 0);
    while at_most <= 0.025 && k < n {
        k += 1;
        exactly *= (n + 1 - k) as f64 / k as f64;
        at_most += exactly;
    }
    let low = *sorted.get(k.checked_sub(1)?)?;
    Some(Interval { low: finite(low)?, high: finite(sorted[n - k])? })
}

/// JSON has no NaN and no infinity.
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.mean, summary.median), (Some(2.5), Some(2.5)));
        assert_eq!((summary.min, summary.max), (Some(1.0), Some(4.0)));
        assert_relative_eq!(summary.p99.unwrap(), 3.97, epsilon = 1e-9);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_median_lies_between_the_fourth_and_the_twelfth_of_fifteen() {
        let values: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        let range = median_interval(&values).unwrap();
        assert_eq!((range.low, range.high), (4.0, 12.0));
        assert_eq!(median_interval(&values[..6]).map(|range| range.low), Some(10.0));
        assert_eq!(median_interval(&values[..5]), None);
    }
}
