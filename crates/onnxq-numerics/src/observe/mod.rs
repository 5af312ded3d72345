//! Observers choose which values of an activation its codes span. They know nothing of ONNX.

mod average;
mod entropy;
mod error;
mod histogram;
mod min_max;
mod mse;
mod percentile;
mod search;
mod spec;
mod stats;

pub use self::{
    average::Average,
    entropy::Entropy,
    error::expected_error,
    histogram::{Bin, Histogram},
    min_max::MinMax,
    mse::Mse,
    percentile::Percentile,
    spec::ObserverSpec,
    stats::RangeStats,
};
use super::affine::Interval;

/// How the range of codes is chosen from what was seen.
pub trait Observer: Send + Sync {
    /// The interval that `levels` codes are to span: zero and values that were seen, or as far
    /// below zero as above if `symmetric`.
    fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval;
}

/// An interval that was chosen without regard to symmetry.
fn with(interval: Interval, symmetric: bool) -> Interval {
    if symmetric { interval.symmetric() } else { interval }
}

#[cfg(test)]
mod laws;
