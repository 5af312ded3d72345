//! Words of the report, in short.

use super::{Cell, Limits, Section, Table};
use crate::Report;

/// A word, what it means, and whether a report has it.
type Word = (&'static str, &'static str, fn(&Report) -> bool);

const WORDS: [Word; 12] = [
    (
        "KL",
        "Kullback-Leibler divergence: how far the probabilities of the quantized model are from \
         those of the original. 0 is the same; the smaller, the better.",
        has_kl,
    ),
    ("nats", "The unit of KL, with the natural logarithm: 1 nat is 1.44 bits.", has_kl),
    ("same top 1", "How often both models choose the same token or class first.", |it| {
        it.figures.outputs.values().any(|it| it.top1.is_some())
    }),
    (
        "perplexity",
        "How surprised a language model is by the true next token: 1 is not at all. Compare it on \
         the same text only.",
        |it| it.figures.outputs.values().any(|it| it.perplexity.is_some()),
    ),
    (
        "SQNR",
        "Signal to quantization noise ratio in decibels: 20 dB is an error of 10 % of the values, \
         40 dB of 1 %. The larger, the better.",
        |it| it.attribution.is_some() || it.figures.outputs.values().any(|it| it.sqnr_db.is_some()),
    ),
    (
        "cosine",
        "Cosine of the angle between the outputs of both models: 1 is the same direction.",
        |it| it.figures.outputs.values().any(|it| it.cosine.is_some()),
    ),
    (
        "local error",
        "The error that a layer adds by itself, if it reads the values of the original.",
        |it| it.attribution.is_some(),
    ),
    (
        "accumulated error",
        "The error at a layer as the quantized model runs, with that of all layers before it.",
        |it| it.attribution.is_some(),
    ),
    (
        "loss without",
        "The error at the outputs if this layer alone computed as in the original.",
        |it| it.attribution.is_some(),
    ),
    (
        "bits per weight",
        "Bytes of all weights times 8 over their number; scales and zero points count.",
        |it| it.models.candidate.bits_per_weight.is_some(),
    ),
    (
        "declared, executed",
        "What the file says of a node, and the kernel that ONNX Runtime really runs.",
        |it| it.precision.iter().any(|it| it.executed.is_some()),
    ),
    (
        "interval",
        "A figure is known as well as the samples allow: 95 of 100 such intervals hold the value \
         that endless data would give.",
        |it| it.figures.outputs.values().any(|it| it.kl_interval.is_some()),
    ),
];

fn has_kl(report: &Report) -> bool {
    let of_attribution = report.attribution.as_ref().is_some_and(|it| it.measure == "kl");
    of_attribution || report.figures.outputs.values().any(|it| it.kl.is_some())
}

pub(super) fn section(report: &Report, limits: Limits) -> Option<Section> {
    let words: Vec<&Word> = WORDS.iter().filter(|it| it.2(report)).collect();
    let table = Table::new("word", "What the words mean").words(&["word", "meaning"]).fill(
        words.into_iter(),
        limits,
        |it| vec![Cell::name(it.0), Cell::sentence(it.1)],
    );
    Section::new("words", "Words").table(table).filled()
}
