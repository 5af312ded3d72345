//! All values that were seen: nothing is clipped.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Observer, RangeStats, with};
use crate::{affine::Interval, specs::Settings};

/// From the least to the greatest value.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MinMax {}

impl Settings for MinMax {}

impl Observer for MinMax {
    fn range(&self, stats: &RangeStats, _: u32, symmetric: bool) -> Interval {
        with(stats.whole(), symmetric)
    }
}
