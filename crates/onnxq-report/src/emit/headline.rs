//! The few figures that decide: original, quantized, ratio.

use super::number::{decibel, maybe, milliseconds, number, percent, plural, times};
use crate::{
    Latency, OutputMetrics, Phase, Report, Role,
    summary::{Summary, finite},
};
use onnxq_ir::human::bytes;

/// One figure, as text. `before` and `ratio` are absent where only the difference has a meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Headline {
    pub label: String,
    pub before: Option<String>,
    pub after: String,
    pub ratio: Option<String>,
    /// Between what the figure varies, or whose it is.
    pub note: Option<String>,
}

pub(super) fn headlines(report: &Report) -> Vec<Headline> {
    let mut list = Vec::new();
    list.extend(size(report));
    list.extend(bits(report));
    list.extend(speed(report));
    list.extend(memory(report));
    list.extend(accuracy(report));
    list
}

/// `None` unless both were measured.
fn pair(label: &str, before: Option<f64>, after: Option<f64>, show: Show) -> Option<Headline> {
    let (before, after) = (before?, after?);
    Some(Headline {
        label: label.to_owned(),
        before: Some(show(before)),
        after: show(after),
        ratio: finite(after / before).map(times),
        note: None,
    })
}

type Show = fn(f64) -> String;

fn alone(label: &str, after: String, note: Option<String>) -> Headline {
    Headline { label: label.to_owned(), after, note, ..Headline::default() }
}

fn size(report: &Report) -> Option<Headline> {
    let size = report.figures.size?;
    pair("Size", Some(size.reference as f64), Some(size.candidate as f64), |it| bytes(it as u64))
}

fn bits(report: &Report) -> Option<Headline> {
    let models = &report.models;
    let (before, after) = (models.reference.bits_per_weight, models.candidate.bits_per_weight);
    pair("Bits per weight", before, after, |it| format!("{it:.2}"))
}

/// The longest input of each phase.
fn speed(report: &Report) -> Vec<Headline> {
    let phases = [(Phase::Run, "Latency"), (Phase::Prefill, "Prefill"), (Phase::Decode, "Decode")];
    let find = |phase| report.figures.latency.iter().find(move |it| it.phase == phase);
    phases.iter().filter_map(|(phase, label)| latency(label, find(*phase)?)).collect()
}

fn latency(label: &str, it: &Latency) -> Option<Headline> {
    let mut headline =
        pair(&format!("{label} {}", it.input), it.reference_ms, it.candidate_ms, milliseconds)?;
    // The median of the ratios, not the ratio of the medians.
    headline.ratio = it.ratio.map(times);
    let spread = it.ratio_spread;
    headline.note =
        spread.map(|it| format!("80 % of runs: × {} … {}", number(it.low), number(it.high)));
    Some(headline)
}

fn memory(report: &Report) -> Option<Headline> {
    let both = report.figures.footprint.as_ref()?;
    let peak = |it: Option<u64>| it.map(|it| it as f64);
    let (before, after) = (peak(both.reference.peak_bytes), peak(both.candidate.peak_bytes));
    pair("Peak memory", before, after, |it| bytes(it as u64))
}

/// Of logits and classes their KL; of everything else the cosine.
fn accuracy(report: &Report) -> Vec<Headline> {
    let outputs = &report.figures.outputs;
    let worst = outputs
        .iter()
        .filter_map(|(name, it)| Some((name, it, it.kl.as_ref()?.mean?)))
        .max_by(|a, b| a.2.total_cmp(&b.2));
    let mut list = Vec::new();
    match worst {
        Some((name, it, _)) => list.extend(of_distribution(name, it)),
        None => list.extend(of_values(report)),
    }
    list
}

fn of_distribution(name: &str, it: &OutputMetrics) -> Vec<Headline> {
    let mut list = Vec::new();
    if let Some(Summary { mean: Some(mean), p99, .. }) = it.kl {
        let samples = plural(it.samples, "sample");
        let note = format!("nats, mean on {samples}; p99 {}", maybe(p99));
        list.push(alone("KL divergence", number(mean), Some(note)));
    }
    list.extend(it.top1.map(|top1| alone("Same top 1", percent(top1), Some(name.to_owned()))));
    if let Some(both) = &it.perplexity {
        let headline = pair("Perplexity", both.reference, both.candidate, number);
        list.extend(headline.map(|it| Headline { ratio: both.ratio.map(times), ..it }));
    }
    list
}

fn of_values(report: &Report) -> Vec<Headline> {
    let outputs = report.figures.outputs.iter().filter(|it| it.1.role != Role::Cache);
    let outputs: Vec<_> = outputs.collect();
    let least = |get: fn(&OutputMetrics) -> Option<f64>| {
        let values = outputs.iter().filter_map(|(name, it)| Some((*name, get(it)?)));
        values.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let cosine = least(|it| it.cosine.as_ref()?.min);
    let sqnr = least(|it| it.sqnr_db);
    let note = |name: &String| Some(format!("worst: {name}"));
    let cosine = cosine.map(|(name, it)| alone("Cosine", format!("{it:.5}"), note(name)));
    let sqnr = sqnr.map(|(name, it)| alone("Signal to noise", decibel(it), note(name)));
    cosine.into_iter().chain(sqnr).collect()
}
