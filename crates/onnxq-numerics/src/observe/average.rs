//! The mean of the samples' ranges: what a moving average tends to, whatever the order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Observer, RangeStats, with};
use crate::{affine::Interval, specs::Settings};

/// From the mean of the samples' least values to the mean of their greatest.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "AverageRange")]
pub struct Average {}

impl Settings for Average {}

impl Observer for Average {
    fn range(&self, stats: &RangeStats, _: u32, symmetric: bool) -> Interval {
        with(stats.mean(), symmetric)
    }
}
