//! Summaries of many values, as JSON can hold them.

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
}
