//! Figures by the names that gates and baselines call them by.

use super::figures::{
    CacheKl, Comparison, Decode, Footprint, Interval, Latency, OutputMetrics, Perplexity, Phase,
};
use crate::summary::{Summary, finite, percentile};

/// One figure of one thing.
pub struct Measured {
    /// The output, or the input shape of a run; `None` if the figure is of the whole model.
    pub output: Option<String>,
    /// `decode` for runs of that phase.
    phase: Option<&'static str>,
    pub value: f64,
    /// Why no value of it can pass.
    pub reason: Option<String>,
}

impl Measured {
    fn of(output: Option<String>, value: f64) -> Measured {
        Measured { output, phase: None, value, reason: None }
    }

    /// Whether a gate that names an output means this.
    pub fn is_called(&self, name: &str) -> bool {
        self.output.as_deref() == Some(name) || self.phase == Some(name)
    }
}

/// Whether a metric is measured for inputs of several shapes.
pub fn is_of_runs(metric: &str) -> bool {
    ["latency_ms", "latency_ratio", "speedup"].contains(&metric)
}

/// The metric of each thing that has it, in the order of the report.
pub fn find(it: &Comparison, metric: &str, statistic: Option<&str>) -> Vec<Measured> {
    let statistic = statistic.unwrap_or("");
    if is_of_runs(metric) {
        let value = |run: &Latency| {
            let value = of_run(run, metric, statistic)?;
            Some(Measured { phase: phase(run), ..Measured::of(Some(run.input.clone()), value) })
        };
        return it.latency.iter().filter_map(value).collect();
    }
    if let Some(value) = of_model(it, metric, statistic) {
        return vec![Measured::of(None, value)];
    }
    let value =
        |(name, output): (&String, &OutputMetrics)| of_output(name, output, metric, statistic);
    it.outputs.iter().filter_map(value).collect()
}

fn phase(run: &Latency) -> Option<&'static str> {
    match run.phase {
        Phase::Run => None,
        Phase::Prefill => Some("prefill"),
        Phase::Decode => Some("decode"),
    }
}

fn of_run(run: &Latency, metric: &str, statistic: &str) -> Option<f64> {
    let of_runs = || {
        let mut sorted: Vec<f32> = run.candidate_runs_ms.iter().map(|it| *it as f32).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let share = if statistic == "p10" { 0.1 } else { 0.9 };
        (!sorted.is_empty()).then(|| percentile(&sorted, share))
    };
    match (metric, statistic) {
        ("latency_ms", "p50") => run.candidate_ms,
        ("latency_ms", _) => of_runs(),
        ("latency_ratio", "p50") => run.ratio,
        ("latency_ratio", "p10") => Some(run.ratio_spread?.low),
        ("latency_ratio", _) => Some(run.ratio_spread?.high),
        (_, "p50") => run.speedup,
        // A slow run is one of high ratio.
        (_, "p10") => Some(run.ratio_spread?.high.recip()),
        (_, _) => Some(run.ratio_spread?.low.recip()),
    }
}

/// `None` if it is no figure of the whole model, or was not measured.
fn of_model(it: &Comparison, metric: &str, statistic: &str) -> Option<f64> {
    let decode = it.decode.as_ref();
    let isolation = it.isolation.as_ref();
    let both = it.footprint.as_ref().map(|it| (&it.reference, &it.candidate));
    let ratio = |get: fn(&Footprint) -> Option<f64>| {
        let (reference, candidate) = both?;
        finite(get(candidate)? / get(reference)?)
    };
    match metric {
        "cache_kl" => decode?.cache_kl.and_then(|it: CacheKl| it.candidate),
        "common_prefix" => of_summary(decode?.common_prefix.as_ref()?, statistic),
        "decode_kl" => of_summary(decode?.kl.as_ref()?, statistic),
        "decode_perplexity_ratio" => {
            ratio_of(&decode.and_then(|it: &Decode| it.perplexity)?, statistic)
        }
        "decode_top1" => decode?.top1,
        "deployed_loss" => isolation?.deployed,
        "load_ms" => both?.1.load_ms,
        "load_ratio" => ratio(|it| it.load_ms),
        "memory_bytes" => both?.1.peak_bytes.map(|it| it as f64),
        "memory_ratio" => ratio(|it| it.peak_bytes.map(|it| it as f64)),
        "size_bytes" => it.size.map(|it| it.candidate as f64),
        "size_ratio" => it.size?.ratio,
        "unoptimized_loss" => isolation?.unoptimized,
        "vnni" => {
            let it = it.kernels.as_ref().filter(|it| it.samples > 0)?;
            Some((it.avx512_vnni + it.avx_vnni) as f64 / it.samples as f64)
        }
        "weights_only_loss" => isolation?.weights_only,
        _ => None,
    }
}

/// `None` if the metric does not apply to this output.
fn of_output(name: &str, it: &OutputMetrics, metric: &str, statistic: &str) -> Option<Measured> {
    let summary = |it: &Option<Summary>| of_summary(it.as_ref()?, statistic);
    // A figure that applies but is not finite is NaN, which no limit allows.
    let must = |it: Option<f64>| Some(it.unwrap_or(f64::NAN));
    let broken = it.nonfinite.broken_rows;
    let value = match metric {
        "cosine" => summary(&it.cosine),
        "equal" => it.equal,
        "iou" => it.iou,
        "kl" if statistic == "upper" => it.kl_interval.map(|it| it.high),
        "kl" => summary(&it.kl),
        "max_abs" => it.max_abs,
        "mean_abs" => it.mean_abs,
        "nonfinite_rows" if it.equal.is_none() => Some(broken as f64),
        "perplexity" => it.perplexity.and_then(|it| must(it.candidate)),
        "perplexity_difference" => {
            let it = it.perplexity?;
            of_interval(must(it.difference), it.difference_interval, statistic)
        }
        "perplexity_ratio" => ratio_of(&it.perplexity?, statistic),
        "pooled_cosine" => summary(&it.pooled_cosine),
        "psnr_db" => it.psnr_db.or((it.exact && it.iou.is_some()).then_some(f64::INFINITY)),
        "rank_correlation" => it.rank_correlation,
        "sqnr_db" => it.sqnr_db.or((it.exact && it.max_abs.is_some()).then_some(f64::INFINITY)),
        "top1" => it.top1,
        "top5" => it.top5,
        _ => return None,
    };
    // Figures leave broken rows out, so no figure may excuse them.
    let excused = metric == "nonfinite_rows" || it.equal.is_some();
    let reason =
        (broken > 0 && !excused).then(|| format!("the candidate has NaN or Inf in {broken} rows"));
    if value.is_none() && reason.is_none() {
        return None;
    }
    Some(Measured { reason, ..Measured::of(Some(name.into()), value.unwrap_or(f64::NAN)) })
}

fn ratio_of(it: &Perplexity, statistic: &str) -> Option<f64> {
    of_interval(it.ratio.or(Some(f64::NAN)), it.ratio_interval, statistic)
}

fn of_interval(value: Option<f64>, interval: Option<Interval>, statistic: &str) -> Option<f64> {
    match statistic {
        "lower" => Some(interval?.low),
        "upper" => Some(interval?.high),
        _ => value,
    }
}

fn of_summary(summary: &Summary, statistic: &str) -> Option<f64> {
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
