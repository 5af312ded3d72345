//! What a file of statistics holds, a row for each input.

use serde::Serialize;

use super::{CalibrateError, Stats, stats::damaged};
use onnxq_numerics::stats::InputStats;

/// A line of `onnxq calibrate --show`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatsRow {
    pub name: String,
    pub k: usize,
    pub rows: u64,
    /// Fraction of `Σ mean_square` in the 1 % of channels that have most of it.
    pub top_share: f64,
    pub max_abs: f32,
    /// Least, median and largest mean square of a channel.
    pub mean_square: [f32; 3],
    /// Channels that were always zero.
    pub dead: usize,
    pub hessian: bool,
}

/// What a file holds, by input.
pub fn describe(stats: &Stats) -> Result<Vec<StatsRow>, CalibrateError> {
    let row = |name: &str| {
        let it = stats.get(name)?.ok_or_else(|| damaged(&stats.path, "an input is missing"))?;
        Ok(describe_input(name, &it))
    };
    stats.names().map(row).collect()
}

fn describe_input(name: &str, stats: &InputStats) -> StatsRow {
    let mut sorted = stats.mean_square.clone();
    sorted.sort_by(f32::total_cmp);
    let sum = |it: &[f32]| it.iter().map(|it| f64::from(*it)).sum::<f64>();
    let (k, total) = (sorted.len(), sum(&sorted));
    let top = sum(&sorted[k - k.div_ceil(100)..]);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    StatsRow {
        name: name.to_owned(),
        k,
        rows: stats.rows,
        top_share: if total > 0.0 { top / total } else { 0.0 },
        max_abs: stats.max_abs.iter().copied().fold(0.0, f32::max),
        mean_square: [at(0), at(k / 2), at(k.saturating_sub(1))],
        dead: stats.max_abs.iter().filter(|it| **it == 0.0).count(),
        hessian: stats.hessian.is_some(),
    }
}
