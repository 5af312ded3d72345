//! Observers choose which values of an activation its quantized values span. They know nothing of
//! ONNX.

mod average;
mod entropy;
mod error;
mod histogram;
mod min_max;
mod mse;
mod percentile;
mod search;
mod stats;

pub use self::{
    error::expected_error,
    histogram::{Bin, Histogram},
    stats::RangeStats,
};
use super::affine::Interval;
use crate::specs;

specs! {
    /// An observer and its settings, as a recipe names it.
    pub enum ObserverSpec("observer", "an observer", "ObserverSettings") as observer: Observer {
    } with settings {
        min_max::MinMax,
        average::Average,
        percentile::Percentile,
        entropy::Entropy,
        mse::Mse,
    }
}

/// How the range of quantized values is chosen from what was seen.
pub trait Observer: Send + Sync {
    /// The interval that `levels` quantized values are to span: zero and values that were seen, or
    /// as far below zero as above if `symmetric`.
    fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval;
}

impl Default for ObserverSpec {
    fn default() -> ObserverSpec {
        ObserverSpec::MinMax(MinMax {})
    }
}

impl ObserverSpec {
    /// The interval that `levels` quantized values are to span: zero and values that were seen, or
    /// as far below zero as above if `symmetric`.
    pub fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval {
        self.observer().range(stats, levels, symmetric)
    }
}

/// An interval that was chosen without regard to symmetry.
fn with(interval: Interval, symmetric: bool) -> Interval {
    if symmetric { interval.symmetric() } else { interval }
}

#[cfg(test)]
mod laws;
