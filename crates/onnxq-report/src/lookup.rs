//! Figures by the names that gates and baselines call them by.

use super::figures::{
    Comparison, Footprint, Interval, Kernels, Latency, OutputMetrics, PartOf, Perplexity, Phase,
};
use crate::summary::{Summary, finite, median_interval, percentile};
use onnxq_quant::recipe::metrics::{METRICS, Metric};

/// One figure of one thing.
pub struct Measured {
    /// The output, or the input shape of a run; `None` if the figure is of the whole model.
    pub output: Option<String>,
    /// What the output is a part of.
    part: Option<PartOf>,
    /// `decode` for runs of that phase.
    phase: Option<&'static str>,
    pub value: f64,
    /// Between what it lies with 95 % confidence, if it is a time.
    pub sure: Option<Interval>,
    /// Why no value of it can pass.
    pub reason: Option<String>,
}

impl Measured {
    fn of(output: Option<String>, value: f64) -> Measured {
        Measured { output, part: None, phase: None, value, sure: None, reason: None }
    }

    /// Whether a gate that names an output means this.
    pub fn is_called(&self, name: &str) -> bool {
        let of_part = self.part.as_ref().is_some_and(|part| part.is_called(name));
        self.output.as_deref() == Some(name) || self.phase == Some(name) || of_part
    }
}

/// Where the figure of a metric stands; the text is the statistic.
enum Place {
    Model(fn(&Comparison, &str) -> Option<f64>),
    /// A figure of each output that it applies to. One that applies but is not finite is NaN, which
    /// no limit allows.
    Output(fn(&OutputMetrics, &str) -> Option<f64>),
    /// A figure for each input that was timed.
    Run(fn(&Latency, &str) -> Option<f64>),
}

use Place::{Model, Output, Run};

/// A line for each row of `METRICS`.
#[rustfmt::skip]
const PLACES: &[(&str, Place)] = &[
    ("cache_kl", Model(|it, _| it.decode.as_ref()?.cache_kl?.candidate)),
    ("common_prefix", Model(|it, of| of_summary(&it.decode.as_ref()?.common_prefix, of))),
    ("cosine", Output(|it, of| of_summary(&it.cosine, of))),
    ("decode_kl", Model(|it, of| of_summary(&it.decode.as_ref()?.kl, of))),
    ("decode_perplexity_ratio", Model(|it, of| ratio_of(&it.decode.as_ref()?.perplexity?, of))),
    ("decode_top1", Model(|it, _| it.decode.as_ref()?.top1)),
    ("deployed_loss", Model(|it, _| it.isolation.as_ref()?.deployed)),
    ("equal", Output(|it, _| it.equal)),
    ("int8_kernels", Model(|it, _| int8_kernels(it.kernels.as_ref()?))),
    ("iou", Output(|it, _| it.iou)),
    ("kl", Output(kl)),
    ("latency_ms", Run(latency_ms)),
    ("latency_ratio", Run(latency_ratio)),
    ("load_ms", Model(|it, _| it.footprint.as_ref()?.candidate.load_ms)),
    ("load_ratio", Model(|it, _| footprint_ratio(it, |it| it.load_ms))),
    ("max_abs", Output(|it, _| it.max_abs)),
    ("mean_abs", Output(|it, _| it.mean_abs)),
    ("memory_bytes", Model(|it, _| peak(&it.footprint.as_ref()?.candidate))),
    ("memory_ratio", Model(|it, _| footprint_ratio(it, peak))),
    ("nonfinite_rows", Output(|it, _| (it.equal.is_none() && it.part.is_none()).then_some(it.nonfinite.broken_rows as f64))),
    ("perplexity", Output(|it, _| must(it.perplexity?.candidate))),
    ("perplexity_difference", Output(|it, of| difference_of(&it.perplexity?, of))),
    ("perplexity_ratio", Output(|it, of| ratio_of(&it.perplexity?, of))),
    ("pooled_cosine", Output(|it, of| of_summary(&it.pooled_cosine, of))),
    ("psnr_db", Output(|it, _| noise(it, it.psnr_db, it.iou.is_some()))),
    ("rank_correlation", Output(|it, _| it.rank_correlation)),
    ("size_bytes", Model(|it, _| Some(it.size?.candidate as f64))),
    ("size_ratio", Model(|it, _| it.size?.ratio)),
    ("speedup", Run(speedup)),
    ("sqnr_db", Output(|it, _| noise(it, it.sqnr_db, it.max_abs.is_some()))),
    ("top1", Output(|it, _| it.top1)),
    ("top5", Output(|it, _| it.top5)),
    ("unoptimized_loss", Model(|it, _| it.isolation.as_ref()?.unoptimized)),
    ("vnni", Model(|it, _| vnni(it.kernels.as_ref()?))),
    ("weights_only_loss", Model(|it, _| it.isolation.as_ref()?.weights_only)),
];

fn place(metric: &str) -> Option<&'static Place> {
    PLACES.iter().find(|it| it.0 == metric).map(|it| &it.1)
}

/// Whether a metric is measured for inputs of several shapes.
pub fn is_of_runs(metric: &str) -> bool {
    matches!(place(metric), Some(Run(_)))
}

/// Whether a metric is measured for each output.
pub fn is_of_outputs(metric: &str) -> bool {
    matches!(place(metric), Some(Output(_)))
}

/// Metrics that some output has; only those of the one that a gate names, if it does.
pub fn figures_of_outputs(comparison: &Comparison, output: Option<&str>) -> Vec<&'static str> {
    let is_called = |it: &Measured| output.is_none_or(|name| it.is_called(name));
    let is_there = |metric: &&Metric| {
        let found = find(comparison, metric.name, metric.statistics.first().copied());
        is_of_outputs(metric.name) && found.iter().any(is_called)
    };
    METRICS.iter().filter(is_there).map(|it| it.name).collect()
}

/// The metric of each thing that has it, in the order of the report.
pub fn find(it: &Comparison, metric: &str, statistic: Option<&str>) -> Vec<Measured> {
    let statistic = statistic.unwrap_or("");
    match place(metric) {
        Some(Model(value)) => {
            value(it, statistic).map(|it| Measured::of(None, it)).into_iter().collect()
        }
        Some(Output(value)) => {
            let outputs = it.outputs.iter();
            outputs
                .filter_map(|(name, it)| of_output(name, it, metric, value(it, statistic)))
                .collect()
        }
        Some(Run(value)) => {
            let of_run = |run: &Latency| {
                let measured = Measured::of(Some(run.input.clone()), value(run, statistic)?);
                let sure = sure(run, metric, statistic);
                Some(Measured { phase: phase(run), sure, ..measured })
            };
            it.latency.iter().filter_map(of_run).collect()
        }
        None => Vec::new(),
    }
}

/// Metrics of outputs that tables for people show in rows of their own.
const HAVE_ROWS: &[&str] = &[
    "cosine",
    "equal",
    "iou",
    "kl",
    "max_abs",
    "mean_abs",
    "nonfinite_rows",
    "perplexity",
    "perplexity_difference",
    "perplexity_ratio",
    "pooled_cosine",
    "psnr_db",
    "rank_correlation",
    "sqnr_db",
    "top1",
    "top5",
];

/// What the others are called there, and their values.
pub fn other_figures(it: &OutputMetrics) -> Vec<(String, f64)> {
    figures_but(it, HAVE_ROWS)
}

fn figures_but(it: &OutputMetrics, left_out: &[&str]) -> Vec<(String, f64)> {
    let others = METRICS.iter().filter(|it| !left_out.contains(&it.name));
    let figure = |metric: &Metric| {
        let Output(value) = place(metric.name)? else { return None };
        let statistic = metric.statistics.first().copied().unwrap_or("");
        let words = [&*metric.name.replace('_', " "), statistic];
        Some((words.join(" ").trim_end().to_owned(), value(it, statistic)?))
    };
    others.filter_map(figure).collect()
}

fn phase(run: &Latency) -> Option<&'static str> {
    match run.phase {
        Phase::Run => None,
        Phase::Prefill => Some("prefill"),
        Phase::Decode => Some("decode"),
    }
}

/// `None` if the metric does not apply to this output.
fn of_output(name: &str, it: &OutputMetrics, metric: &str, value: Option<f64>) -> Option<Measured> {
    let broken = it.nonfinite.broken_rows;
    // Figures leave broken rows out, so no figure may excuse them.
    let excused = metric == "nonfinite_rows" || it.equal.is_some();
    let reason =
        (broken > 0 && !excused).then(|| format!("the candidate has NaN or Inf in {broken} rows"));
    if value.is_none() && reason.is_none() {
        return None;
    }
    let part = it.part.clone();
    Some(Measured { reason, part, ..Measured::of(Some(name.into()), value.unwrap_or(f64::NAN)) })
}

fn kl(it: &OutputMetrics, statistic: &str) -> Option<f64> {
    match statistic {
        "upper" => it.kl_interval.map(|it| it.high),
        _ => of_summary(&it.kl, statistic),
    }
}

fn latency_ms(run: &Latency, statistic: &str) -> Option<f64> {
    if statistic == "p50" {
        return run.candidate_ms;
    }
    let mut sorted: Vec<f32> = run.candidate_runs_ms.iter().map(|it| *it as f32).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let share = if statistic == "p10" { 0.1 } else { 0.9 };
    (!sorted.is_empty()).then(|| percentile(&sorted, share))
}

fn latency_ratio(run: &Latency, statistic: &str) -> Option<f64> {
    match statistic {
        "p50" => run.ratio,
        "p10" => Some(run.ratio_spread?.low),
        _ => Some(run.ratio_spread?.high),
    }
}

/// Between what a median time lies.
fn sure(run: &Latency, metric: &str, statistic: &str) -> Option<Interval> {
    let ratio = run.ratio_interval;
    match (metric, statistic) {
        ("latency_ms", "p50") => median_interval(&run.candidate_runs_ms),
        ("latency_ratio", "p50") => ratio,
        ("speedup", "p50") => {
            ratio.map(|range| Interval { low: range.high.recip(), high: range.low.recip() })
        }
        _ => None,
    }
}

fn speedup(run: &Latency, statistic: &str) -> Option<f64> {
    match statistic {
        "p50" => run.speedup,
        // A slow run is one of high ratio.
        "p10" => Some(run.ratio_spread?.high.recip()),
        _ => Some(run.ratio_spread?.low.recip()),
    }
}

fn footprint_ratio(it: &Comparison, get: fn(&Footprint) -> Option<f64>) -> Option<f64> {
    let both = it.footprint.as_ref()?;
    finite(get(&both.candidate)? / get(&both.reference)?)
}

fn peak(it: &Footprint) -> Option<f64> {
    it.peak_bytes.map(|it| it as f64)
}

fn vnni(it: &Kernels) -> Option<f64> {
    share(it, it.avx512_vnni + it.avx_vnni)
}

fn int8_kernels(it: &Kernels) -> Option<f64> {
    share(it, it.avx512_vnni + it.avx_vnni + it.amx_int8)
}

fn share(it: &Kernels, count: usize) -> Option<f64> {
    (it.samples > 0).then_some(count as f64 / it.samples as f64)
}

/// A ratio of signal to noise; without noise it is infinite, if it applies.
fn noise(it: &OutputMetrics, value: Option<f64>, applies: bool) -> Option<f64> {
    value.or((it.exact && applies).then_some(f64::INFINITY))
}

fn must(value: Option<f64>) -> Option<f64> {
    Some(value.unwrap_or(f64::NAN))
}

fn difference_of(it: &Perplexity, statistic: &str) -> Option<f64> {
    of_interval(must(it.difference), it.difference_interval, statistic)
}

fn ratio_of(it: &Perplexity, statistic: &str) -> Option<f64> {
    of_interval(must(it.ratio), it.ratio_interval, statistic)
}

fn of_interval(value: Option<f64>, interval: Option<Interval>, statistic: &str) -> Option<f64> {
    match statistic {
        "lower" => Some(interval?.low),
        "upper" => Some(interval?.high),
        _ => value,
    }
}

fn of_summary(summary: &Option<Summary>, statistic: &str) -> Option<f64> {
    let summary = summary.as_ref()?;
    match statistic {
        "max" => summary.max,
        "mean" => summary.mean,
        "median" => summary.median,
        "min" => summary.min,
        "p1" => summary.p1,
        "p90" => summary.p90,
        "p95" => summary.p95,
        "p99" => summary.p99,
        "p999" => summary.p999,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::recipe::metrics::Measure;

    #[test]
    fn every_metric_has_a_place() {
        let places: Vec<&str> = PLACES.iter().map(|it| it.0).collect();
        assert_eq!(places, METRICS.iter().map(|it| it.name).collect::<Vec<_>>());
        for it in METRICS {
            let of_outputs = matches!(place(it.name), Some(Output(_)));
            assert!(!of_outputs || it.measured_by == Measure::Outputs, "{}", it.name);
        }
    }

    #[test]
    fn figures_without_a_row_of_their_own_are_named_after_the_metric() {
        let it = OutputMetrics { max_abs: Some(2.0), iou: Some(0.5), ..OutputMetrics::default() };
        let list = figures_but(&it, &["iou", "nonfinite_rows"]);
        assert_eq!(list, [("max abs".to_owned(), 2.0)]);
    }
}
