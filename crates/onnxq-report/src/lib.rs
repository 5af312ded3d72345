//! How two models' outputs differ: figures, gates over them, and the report in every format.

pub mod baseline;
pub mod document;
pub mod emit;
pub mod figures;
pub mod gate;
mod judgement;
pub mod lookup;
pub mod pictures;
pub mod summary;

pub use self::{
    baseline::{BaselineFacts, BaselineRow},
    document::{Report, Verdict},
    figures::{
        CacheKl, Comparison, Decode, Footprint, Footprints, Histogram, Interval, Isolation,
        Kernels, Latency, NonFinite, OutputMetrics, Perplexity, Phase, PositionBin, Role,
        SampleError, Size, TokenError,
    },
    gate::GateResult,
};

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::recipe::gate::Gate;

    #[test]
    fn json_leads_back_and_a_ratio_of_nothing_fails() {
        let comparison = Comparison { size: Some(Size::new(0, 0)), ..Comparison::default() };
        let gate: Gate = "size_ratio<=1".parse().unwrap();
        let result = gate::check(&gate, &comparison);
        assert!(!result.pass);
        let json = serde_json::to_string(&(&comparison, &result)).unwrap();
        let back: (Comparison, GateResult) = serde_json::from_str(&json).unwrap();
        assert_eq!(back, (comparison, result));
    }
}
