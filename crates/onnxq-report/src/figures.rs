//! What is measured of two models: plain data, which reports keep and gates limit.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{pictures::Pictures, summary::Summary};

/// Every figure of a comparison. What was not measured is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Comparison {
    pub samples: usize,
    /// Filled in by the caller, who knows the files.
    pub size: Option<Size>,
    /// Each output, and each part of one that joins several quantities: `output0[scores]`.
    pub outputs: BTreeMap<String, OutputMetrics>,
    /// Longest input first; empty if it was not measured.
    pub latency: Vec<Latency>,
    /// Token by token with a cache of keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
    /// How much of the error is the weights', and how much the deployment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Each model alone in a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub footprint: Option<Footprints>,
    /// Which instructions ran in the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
}

/// Bytes of all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    pub reference: u64,
    pub candidate: u64,
    pub ratio: Option<f64>,
}

impl Size {
    pub fn new(reference: u64, candidate: u64) -> Size {
        let ratio = super::summary::finite(candidate as f64 / reference as f64);
        Size { reference, candidate, ratio }
    }
}

/// What an output is, as its name, its shape and the inputs say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Logits of the next token, \[batch, sequence, vocabulary\].
    Logits,
    /// Logits of classes, one row per sample.
    Classes,
    /// Probabilities of classes, one row per sample.
    Probabilities,
    /// A vector per sample.
    Embedding,
    /// A vector per token.
    Hidden,
    /// \[batch, channels, height, width\], or the like.
    Image,
    /// Keys or values of attention.
    Cache,
    /// Elements that are equal or not: integers, booleans, strings.
    Discrete,
    #[default]
    Values,
}

impl Role {
    /// The role of the same values where rows are no samples.
    pub fn of_any_rows(self) -> Role {
        match self {
            Role::Classes | Role::Probabilities | Role::Embedding => Role::Values,
            other => other,
        }
    }
}

/// How one output of the candidate differs from the reference's. A figure that does not apply
/// to this kind of output, or that is not finite, is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OutputMetrics {
    pub role: Role,
    /// Where it lies, if it is no output but a part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<PartOf>,
    pub samples: usize,
    pub elements: usize,
    /// Every element is the same; then `sqnr_db`, which would be infinite, is `null`.
    pub exact: bool,
    /// Per sample.
    pub cosine: Option<Summary>,
    /// Of vectors that are averaged over a sample's tokens, as sentence embeddings are.
    pub pooled_cosine: Option<Summary>,
    /// Spearman's correlation between the similarities of all pairs of samples in both models:
    /// 1 if a search would rank everything alike.
    pub rank_correlation: Option<f64>,
    pub sqnr_db: Option<f64>,
    /// Peak signal to noise; the peak is the range of the reference.
    pub psnr_db: Option<f64>,
    /// Intersection over union of the places above 0.3, of maps between 0 and 1.
    pub iou: Option<f64>,
    pub max_abs: Option<f64>,
    pub mean_abs: Option<f64>,
    /// KL(reference ‖ candidate) per token or sample, in nats.
    pub kl: Option<Summary>,
    /// Of the mean, 95 %, over samples.
    pub kl_interval: Option<Interval>,
    /// Fraction with the same most likely token or class.
    pub top1: Option<f64>,
    /// Fraction whose most likely one in the reference is among the candidate's first five.
    pub top5: Option<f64>,
    pub perplexity: Option<Perplexity>,
    /// Fraction of equal elements of an output that is not float.
    pub equal: Option<f64>,
    pub nonfinite: NonFinite,
    /// How many tokens (samples) have which KL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_histogram: Option<Histogram>,
    /// The error along the sequence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_position: Vec<PositionBin>,
    /// The tokens with the largest KL, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worst_tokens: Vec<TokenError>,
    /// The samples with the largest error, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worst_samples: Vec<SampleError>,
    /// Of an output that is an image: the worst sample, side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pictures: Option<Pictures>,
}

/// A range along an axis of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartOf {
    pub output: String,
    pub axis: usize,
    pub from: usize,
    /// The first place behind it.
    pub to: usize,
}

impl PartOf {
    /// Whether a gate that names an output or a range of it means this.
    pub fn is_called(&self, name: &str) -> bool {
        let PartOf { output, from, to, .. } = self;
        name == output || name == format!("{output}[{from}:{to}]")
    }
}

/// Of the true next tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Perplexity {
    pub reference: Option<f64>,
    pub candidate: Option<f64>,
    pub ratio: Option<f64>,
    /// Candidate minus reference.
    pub difference: Option<f64>,
    /// 95 % intervals, from a bootstrap over sequences; both models on the same ones.
    pub ratio_interval: Option<Interval>,
    pub difference_interval: Option<Interval>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Rows that hold such values are left out of every other figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NonFinite {
    /// NaN and Inf in the reference's output.
    pub reference: usize,
    pub candidate: usize,
    /// Rows left out.
    pub rows: usize,
    /// Rows left out although the reference is finite there: the candidate's own fault.
    pub broken_rows: usize,
}

/// Counts between edges, `edges.len() == counts.len() + 1`. The first bin also holds what is below
/// its edge, the last what is above.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    pub edges: Vec<f64>,
    pub counts: Vec<u64>,
}

/// Tokens `from..to` of the sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PositionBin {
    pub from: usize,
    pub to: usize,
    pub tokens: usize,
    pub kl: Option<f64>,
    pub top1: Option<f64>,
    pub sqnr_db: Option<f64>,
}

/// A token with its likely successors, in both models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TokenError {
    pub sample: usize,
    /// Of the token that the prediction follows.
    pub position: usize,
    pub kl: f64,
    /// The most likely next token of each model, with its probability.
    pub reference: i64,
    pub reference_probability: f64,
    pub candidate: i64,
    pub candidate_probability: f64,
    /// The true next token.
    pub next: Option<i64>,
    /// Up to 24 tokens, of which this is the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context_ids: Vec<i64>,
    /// They as text, if there is a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_text: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SampleError {
    pub sample: usize,
    /// Where it comes from, if it has a file of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How it begins, if there is a tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub cosine: Option<f64>,
    pub sqnr_db: Option<f64>,
}

/// What a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Run,
    /// Many tokens at once.
    Prefill,
    /// One token after others that lie in the cache.
    Decode,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Latency {
    /// `1x128`: batch and sequence, or the shape of the first input; `1x1+128`: after 128 others.
    pub input: String,
    pub phase: Phase,
    /// Medians.
    pub reference_ms: Option<f64>,
    pub candidate_ms: Option<f64>,
    /// Median of the ratios of neighbouring runs: candidate / reference.
    pub ratio: Option<f64>,
    /// The 10th and the 90th percentile of these ratios.
    pub ratio_spread: Option<Interval>,
    /// Between what the median of all such ratios lies with 95 % confidence, by their order alone.
    pub ratio_interval: Option<Interval>,
    /// The same the other way round.
    pub speedup: Option<f64>,
    /// Timed runs of each model.
    pub repeats: usize,
    /// Each run, in milliseconds, in turn.
    pub reference_runs_ms: Vec<f64>,
    pub candidate_runs_ms: Vec<f64>,
}

/// Both models continue the same text, token by token, each with its own cache; the true token is
/// fed in, whatever a model would have said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Decode {
    pub samples: usize,
    /// Tokens that are read at once before the first step.
    pub prompt: usize,
    /// Steps per sample.
    pub steps: usize,
    pub kl: Option<Summary>,
    pub top1: Option<f64>,
    pub perplexity: Option<Perplexity>,
    /// Along the steps: the cache gathers errors.
    pub by_step: Vec<PositionBin>,
    /// Tokens that greedy decoding says alike before it differs for the first time.
    pub common_prefix: Option<Summary>,
    /// KL between a model's steps with the cache and its own run of all tokens at once: what is
    /// wrong with the cache itself.
    pub cache_kl: Option<CacheKl>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CacheKl {
    pub reference: Option<f64>,
    pub candidate: Option<f64>,
}

/// The same loss of three forms of the candidate, on the same samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Isolation {
    pub samples: usize,
    /// `kl` (mean, in nats) or `noise_to_signal` (power ratio).
    pub measure: String,
    /// Quantized weights, float activations.
    pub weights_only: Option<f64>,
    /// As it will run: all optimizations of ONNX Runtime.
    pub deployed: Option<f64>,
    /// Without optimizations.
    pub unoptimized: Option<f64>,
    /// Why one of them is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Footprints {
    pub reference: Footprint,
    pub candidate: Footprint,
}

/// One model in a process of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Footprint {
    /// Until the session is ready.
    pub load_ms: Option<f64>,
    /// The largest resident size, with the library, after one run.
    pub peak_bytes: Option<u64>,
    /// The resident size before the model was loaded.
    pub base_bytes: Option<u64>,
}

/// Where the processor was while the candidate ran, from samples of its instruction pointer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kernels {
    /// Samples within ONNX Runtime.
    pub samples: usize,
    /// Of them, beside a VPDPBUSD in the AVX-512 encoding.
    pub avx512_vnni: usize,
    /// In the AVX-VNNI encoding.
    pub avx_vnni: usize,
    /// Beside a tile product of AMX.
    pub amx_int8: usize,
    /// Beside a VPMADDUBSW, which saturates.
    pub vpmaddubsw: usize,
    /// In one line: `AVX-512 VNNI executed (61 % of 412 samples)`.
    pub verdict: String,
}
