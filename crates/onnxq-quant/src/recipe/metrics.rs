//! What gates can limit, and what a baseline watches.

/// Something a gate can limit.
pub struct Metric {
    pub name: &'static str,
    /// The first is meant if a gate names none; empty for a single number.
    pub statistics: &'static [&'static str],
    pub better: Better,
    /// How much worse than in a baseline is no regression; `None` if the figure depends on the
    /// machine or on chance too much to be watched.
    pub slack: Option<Slack>,
    /// What has to be run to have it.
    pub measured_by: Measure,
    pub unit: Unit,
    pub help: &'static str,
}

/// What a figure counts, which says what its limits can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// From 0 to 1.
    Fraction,
    Bytes,
    /// At least 1: a perplexity.
    Perplexity,
    Other,
}

/// What a comparison runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Both models on the data, in any case.
    Outputs,
    /// The same many times over, with a look at the instructions that run.
    Latency,
    /// Steps with a cache of keys and values.
    Decode,
    /// Other forms of the quantized model, on a few samples.
    Isolation,
    /// Each model alone in a process.
    Footprint,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    Lower,
    Higher,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Slack {
    /// This fraction of the figure.
    Of(f64),
    /// This fraction of what is missing to 1, and a thousandth.
    OfRest(f64),
    By(f64),
}

impl Slack {
    /// The worst value that is no regression from `then`.
    pub fn limit(self, then: f64, better: Better) -> f64 {
        let slack = match self {
            Slack::Of(share) => share * then.abs() + 1e-9,
            Slack::OfRest(share) => share * (1.0 - then).max(0.0) + 1e-3,
            Slack::By(by) => by,
        };
        if better == Better::Lower { then + slack } else { then - slack }
    }
}

pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|it| it.name == name)
}

/// Of a distance per token; `upper` is the upper end of the 95 % interval of the mean.
const DISTANCE: &[&str] = &["mean", "median", "p90", "p95", "p99", "p999", "max", "upper"];
const STEPS: &[&str] = &["mean", "median", "p90", "p95", "p99", "p999", "max"];
const LIKENESS: &[&str] = &["min", "p1", "mean", "median"];
/// The figure, and the ends of its 95 % interval.
const SURE: &[&str] = &["value", "lower", "upper"];
const RUNS: &[&str] = &["p50", "p10", "p90"];

const fn row(
    name: &'static str,
    statistics: &'static [&'static str],
    better: Better,
    slack: Option<Slack>,
    measured_by: Measure,
    help: &'static str,
) -> Metric {
    Metric { name, statistics, better, slack, measured_by, unit: Unit::Other, help }
}

impl Metric {
    const fn counts(self, unit: Unit) -> Metric {
        Metric { unit, ..self }
    }
}

use Better::{Higher, Lower};
use Measure::{Decode, Footprint, Isolation, Latency, Outputs};
use Slack::{By, Of, OfRest};

#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    row("cache_kl", &[], Lower, Some(Of(0.2)), Decode,
        "KL between the quantized model's steps with its cache and its run of all tokens at once"),
    row("common_prefix", &["mean", "median", "min"], Higher, None, Decode,
        "tokens that greedy decoding says alike before it first differs"),
    row("cosine", LIKENESS, Higher, Some(OfRest(0.1)), Outputs,
        "cosine similarity of the outputs, per sample"),
    row("decode_kl", STEPS, Lower, Some(Of(0.1)), Decode,
        "KL divergence of steps with a cache of keys and values, in nats"),
    row("decode_perplexity_ratio", SURE, Lower, Some(Of(0.005)), Decode,
        "perplexity of steps with a cache, relative to the original"),
    row("decode_top1", &[], Higher, Some(OfRest(0.1)), Decode,
        "fraction of steps with a cache that have the same most likely token").counts(Unit::Fraction),
    row("deployed_loss", &[], Lower, Some(Of(0.1)), Isolation,
        "loss on a few samples as the model will run (KL, or noise to signal)"),
    row("equal", &[], Higher, Some(OfRest(0.1)), Outputs,
        "fraction of equal elements of an integer output").counts(Unit::Fraction),
    row("int8_kernels", &[], Higher, None, Latency,
        "share of CPU time in exact int8 dot products: AVX-512 VNNI, AVX-VNNI or AMX").counts(Unit::Fraction),
    row("iou", &[], Higher, Some(OfRest(0.1)), Outputs,
        "intersection over union of the places above 0.3, of maps between 0 and 1").counts(Unit::Fraction),
    row("kl", DISTANCE, Lower, Some(Of(0.1)), Outputs,
        "KL divergence from the original's distribution over tokens or classes, in nats"),
    row("latency_ms", RUNS, Lower, None, Latency,
        "time of a run of the quantized model"),
    row("latency_ratio", RUNS, Lower, Some(Of(0.1)), Latency,
        "time of a run, relative to the original"),
    row("load_ms", &[], Lower, None, Footprint,
        "time until the quantized model is loaded"),
    row("load_ratio", &[], Lower, None, Footprint,
        "time until it is loaded, relative to the original"),
    row("max_abs", &[], Lower, None, Outputs,
        "largest absolute error"),
    row("mean_abs", &[], Lower, Some(Of(0.1)), Outputs,
        "mean absolute error"),
    row("memory_bytes", &[], Lower, None, Footprint,
        "largest resident size of a process that runs the quantized model").counts(Unit::Bytes),
    row("memory_ratio", &[], Lower, Some(Of(0.1)), Footprint,
        "largest resident size, relative to the original"),
    row("nonfinite_rows", &[], Lower, Some(By(0.0)), Outputs,
        "rows with NaN or Inf where the original has none"),
    row("perplexity", &[], Lower, None, Outputs,
        "perplexity of the quantized model").counts(Unit::Perplexity),
    row("perplexity_difference", SURE, Lower, None, Outputs,
        "perplexity, minus that of the original"),
    row("perplexity_ratio", SURE, Lower, Some(Of(0.005)), Outputs,
        "perplexity, relative to the original"),
    row("pooled_cosine", LIKENESS, Higher, Some(OfRest(0.1)), Outputs,
        "cosine similarity of hidden states averaged over a sample's tokens"),
    row("psnr_db", &[], Higher, Some(By(0.5)), Outputs,
        "peak signal to noise ratio of images, in dB"),
    row("rank_correlation", &[], Higher, Some(OfRest(0.2)), Outputs,
        "Spearman's correlation of the similarities of all pairs of samples"),
    row("size_bytes", &[], Lower, None, Outputs,
        "bytes of all files").counts(Unit::Bytes),
    row("size_ratio", &[], Lower, Some(Of(0.01)), Outputs,
        "bytes, relative to the original"),
    row("speedup", RUNS, Higher, None, Latency,
        "how many times faster a run is"),
    row("sqnr_db", &[], Higher, Some(By(0.5)), Outputs,
        "signal to quantization noise ratio, in dB; of an output that joins several quantities (boxes and scores) that of the worst part, `output0[4:10]:sqnr_db` is that of one"),
    row("top1", &[], Higher, Some(OfRest(0.1)), Outputs,
        "fraction of tokens with the same most likely successor, or of samples with the same class").counts(Unit::Fraction),
    row("top5", &[], Higher, Some(OfRest(0.1)), Outputs,
        "fraction whose most likely one is among the first five of the quantized model").counts(Unit::Fraction),
    row("unoptimized_loss", &[], Lower, Some(Of(0.1)), Isolation,
        "as deployed_loss, without ONNX Runtime's optimizations"),
    row("vnni", &[], Higher, None, Latency,
        "as int8_kernels, without AMX").counts(Unit::Fraction),
    row("weights_only_loss", &[], Lower, Some(Of(0.1)), Isolation,
        "as deployed_loss, with quantized weights and float activations"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_sorted() {
        assert!(METRICS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(metric("kl").unwrap().statistics[0], "mean");
    }

    #[test]
    fn slack_is_on_the_worse_side() {
        for it in METRICS.iter().filter_map(|it| Some((it.slack?, it.better))) {
            let (then, limit) = (0.9, it.0.limit(0.9, it.1));
            assert!(if it.1 == Lower { limit >= then } else { limit <= then });
        }
        assert!((OfRest(0.1).limit(0.98, Higher) - 0.977).abs() < 1e-12);
        assert!((Of(0.1).limit(0.02, Lower) - 0.022).abs() < 1e-8);
    }
}
