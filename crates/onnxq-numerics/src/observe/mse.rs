//! The least error of rounding and clipping together, both ends being searched.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bin, Observer, RangeStats, error::Grid, search::search};
use crate::{
    affine::Interval,
    specs::{Settings, Wrong, within},
};

/// Least expected error of the values.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "MseRange")]
pub struct Mse {
    /// The error of a value to this power is what counts: more than 2 clips less.
    pub norm: f64,
}

impl Default for Mse {
    fn default() -> Mse {
        Mse { norm: 2.0 }
    }
}

impl Settings for Mse {
    fn check(&self) -> Result<(), Wrong> {
        within("norm", self.norm, 0.5..=8.0)
    }
}

impl Observer for Mse {
    fn range(&self, stats: &RangeStats, levels: u32, symmetric: bool) -> Interval {
        let bins: Vec<Bin> = stats.histogram.bins().collect();
        search(stats.whole(), symmetric, |it| {
            let grid = Grid::new(it, levels, self.norm);
            bins.iter().map(|it| it.count as f64 * grid.mean(it)).sum()
        })
    }
}
