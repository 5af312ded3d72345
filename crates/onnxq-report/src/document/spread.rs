//! How the numbers of a weight or an activation are spread, beside what quantized ones can hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figures::{Histogram, Interval};

/// A histogram of the reference's numbers, and the range of the candidate's quantized ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Spread {
    /// The weight or the activation, as the reference calls it.
    pub name: String,
    /// `value`: numbers as they are. `grid`: each one measured in half the width of what its own
    /// channel or block can hold, from the middle of that, so -1 and 1 are the ends of the grid.
    pub unit: String,
    /// What shares a scale, for `grid`: `channel`, `block of 32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_per: Option<String>,
    /// Bars of one width. For `grid`, the outermost two hold all that lies beyond them.
    pub histogram: Histogram,
    /// Numbers outside of it become its ends; `null` if each run has a range of its own, or if
    /// nothing is quantized.
    pub holds: Option<Interval>,
    /// The share of the numbers that lie outside.
    pub outside: Option<f64>,
    /// The candidate's quantized numbers: the float ones that they stand for are not in the reference,
    /// because a transform changed them or nodes were fused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
    /// Each run has a range of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dynamic: bool,
}
