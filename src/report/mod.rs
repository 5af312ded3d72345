//! How two models' outputs differ: metrics, their comparison on data, and gates, all serializable.

mod accumulate;
pub mod baseline;
mod cache;
mod compare;
mod decode;
pub mod document;
pub mod emit;
mod figures;
mod gate;
mod interval;
mod latency;
mod lookup;
pub mod metrics;
mod picture;
mod role;
mod softmax;
mod tokens;
mod vectors;

pub use self::{
    baseline::{BaselineFacts, BaselineRow},
    compare::{CompareError, CompareOptions, compare},
    decode::decode,
    document::{Report, Verdict},
    figures::{
        CacheKl, Comparison, Decode, Footprint, Footprints, Histogram, Interval, Isolation,
        Kernels, Latency, NonFinite, OutputMetrics, Perplexity, Phase, PositionBin, Role,
        SampleError, Size, TokenError,
    },
    gate::GateResult,
};

pub use crate::ctx::grouped;

/// `25.1 MiB`: sizes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::gate::Gate;

    #[test]
    fn digits_come_in_groups() {
        assert_eq!([0, 999, 1000, 1_142_372].map(grouped), ["0", "999", "1,000", "1,142,372"]);
    }

    #[test]
    fn json_leads_back_and_a_ratio_of_nothing_fails() {
        let comparison = Comparison { size: Some(Size::new(0, 0)), ..Comparison::default() };
        let gate: Gate = "size_ratio<=1".parse().unwrap();
        let result = gate.check(&comparison);
        assert!(!result.pass);
        let json = serde_json::to_string(&(&comparison, &result)).unwrap();
        let back: (Comparison, GateResult) = serde_json::from_str(&json).unwrap();
        assert_eq!(back, (comparison, result));
    }
}
