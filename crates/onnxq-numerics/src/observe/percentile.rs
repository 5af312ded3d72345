//! All values but a given share, half of it at each end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Observer, RangeStats, with};
use crate::{
    affine::Interval,
    specs::{Settings, Wrong, within},
};

/// Leaves out the rarest values at both ends.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Percentile {
    /// Percent of all values that are kept; half of the rest lies below, half above. As in
    /// ONNX Runtime.
    pub percentile: f64,
}

impl Default for Percentile {
    fn default() -> Percentile {
        Percentile { percentile: 99.999 }
    }
}

impl Settings for Percentile {
    fn check(&self) -> Result<(), Wrong> {
        within("percentile", self.percentile, 50.0..=100.0)
    }
}

impl Observer for Percentile {
    fn range(&self, stats: &RangeStats, _: u32, symmetric: bool) -> Interval {
        let histogram = &stats.histogram;
        let cut = (histogram.count() as f64 * (100.0 - self.percentile) / 200.0) as u64;
        with(Interval::new(histogram.low(cut), histogram.high(cut)), symmetric)
    }
}
