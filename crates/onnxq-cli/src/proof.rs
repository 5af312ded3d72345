//! A report on the terminal: how close the outputs are, how fast, and what the gates say.

use super::{Table, layers, show::sizes};
use onnxq_ir::{
    human::{bytes, grouped, number, of_samples, percent},
    untrusted::{Untrusted, escape},
};
use onnxq_report::{
    BaselineFacts, Comparison, Decode, Footprints, GateResult, Interval, Isolation, OutputMetrics,
    Perplexity, Report, Role, TokenError, lookup::other_figures, summary::Summary,
};

/// The figures of `validate`, and what they are held against.
pub(crate) fn report(it: &Report) -> String {
    measured(it) + &judged(it) + &verdict(it)
}

/// What was measured, and where the error arises.
pub(crate) fn measured(report: &Report) -> String {
    let mut out = figures(&report.figures);
    if let Some(attribution) = &report.attribution {
        out += &format!("\n{}", layers::attribution(attribution));
    }
    out
}

/// The verdict, and why.
pub(crate) fn verdict(report: &Report) -> String {
    format!("\n{}: {}\n", report.verdict_word(), escape(&report.verdict_reason()))
}

/// Baseline, gates and warnings, which a verdict follows.
pub(crate) fn judged(report: &Report) -> String {
    let mut out = String::new();
    if let Some(baseline) = &report.baseline {
        out += &format!("\n{}", self::baseline(baseline));
    }
    if !report.gates.is_empty() {
        out += &format!("\n{}", gates(&report.gates));
    }
    for warning in &report.warnings {
        out += &format!("warning [{}]: {}\n", warning.code, escape(&warning.message));
    }
    out
}

/// What was measured, without a verdict.
pub(crate) fn figures(it: &Comparison) -> String {
    let whole = it.samples;
    let size = it.size.as_ref().map_or((0, 0), |it| (it.reference, it.candidate));
    let mut out = sizes(size.0, size.1, &it.latency);
    let (caches, others): (Vec<_>, Vec<_>) =
        it.outputs.iter().partition(|(_, it)| it.role == Role::Cache);
    let (parts, wholes): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, it)| it.part.is_some());
    for (name, metrics) in wholes {
        out += &format!("\n{}", metrics_table(name, metrics));
    }
    out += &pieces(&parts);
    out += &self::caches(&caches);
    if let Some(it) = &it.decode {
        out += &format!("\n{}", decode(it, whole));
    }
    if let Some(it) = &it.isolation {
        out += &format!("\n{}", isolation(it, whole));
    }
    if let Some(it) = &it.footprint {
        out += &format!("\n{}", footprint(it));
    }
    if let Some(it) = &it.kernels {
        out += &format!("kernels: {}\n", it.verdict);
    }
    out
}

fn metrics_table(name: &str, it: &OutputMetrics) -> String {
    let mut table = Table::new(["output", name]);
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([key, &value]);
        }
    };
    row("samples", Some(it.samples.to_string()));
    row("identical", it.exact.then(|| "yes, bit for bit".into()));
    row("KL (nats)", it.kl.as_ref().map(|kl| highest(kl, it.kl_interval)));
    row("top-1 agreement", it.top1.map(percent));
    row("top-5 agreement", it.top5.map(percent));
    row("perplexity", it.perplexity.as_ref().and_then(perplexity));
    row("cosine", it.cosine.as_ref().map(lowest));
    row("pooled cosine", it.pooled_cosine.as_ref().map(lowest));
    row("rank correlation", it.rank_correlation.map(|it| format!("{it:.5}")));
    row("IoU", it.iou.map(|it| format!("{it:.4}")));
    row("PSNR", it.psnr_db.map(|it| format!("{it:.2} dB")));
    row("SQNR", it.sqnr_db.map(|it| format!("{it:.2} dB")));
    row("max |Δ|", it.max_abs.map(number));
    row("equal", it.equal.map(percent));
    for (label, value) in other_figures(it) {
        row(&label, Some(number(value)));
    }
    row("worst token", it.worst_tokens.first().map(worst));
    let nonfinite = (it.nonfinite.reference, it.nonfinite.candidate);
    row(
        "NaN or Inf",
        (nonfinite != (0, 0))
            .then(|| format!("{} in the original, {} in the quantized", nonfinite.0, nonfinite.1)),
    );
    table.to_string()
}

/// What outputs are joined of, a row each.
fn pieces(list: &[(&String, &OutputMetrics)]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["part of an output", "axis", "range", "SQNR", "max |Δ|"]);
    for (name, metrics) in list {
        let place = metrics.part.as_ref().map(|it| (it.axis, format!("{}:{}", it.from, it.to)));
        let (axis, range) = place.unwrap_or_default();
        let noise = metrics.sqnr_db.map(|db| format!("{db:.2} dB"));
        let noise = noise.unwrap_or_else(|| if metrics.exact { "exact" } else { "-" }.into());
        let largest = metrics.max_abs.map_or("-".into(), number);
        table.row([&**name, &axis.to_string(), &range, &noise, &largest]);
    }
    format!("\n{table}")
}

/// Keys and values of many layers in one line.
fn caches(list: &[(&String, &OutputMetrics)]) -> String {
    let noisy = list.iter().filter_map(|(name, it)| Some((it.sqnr_db?, name)));
    let worst = noisy.min_by(|a, b| a.0.total_cmp(&b.0));
    match worst {
        _ if list.is_empty() => String::new(),
        Some((db, name)) => {
            let (count, name) = (list.len(), Untrusted(name));
            format!("cache: {count} outputs, SQNR at least {db:.2} dB ({name})\n")
        }
        None => format!("cache: {} outputs, identical\n", list.len()),
    }
}

/// `KL 2.31 at sample 5, token 12: "…once upon a" → " time" (98 %), now " day" (51 %)`.
fn worst(it: &TokenError) -> String {
    let side = |text: &Option<String>, id: i64, probability: f64| {
        let text = text.as_ref().map_or(format!("token {id}"), |it| quoted(it));
        format!("{text} ({:.0} %)", probability * 100.0)
    };
    let before = it.context.as_ref().map_or(String::new(), |it| format!("after {}: ", tail(it)));
    format!(
        "KL {} at sample {}, token {}: {before}{}, now {}",
        number(it.kl),
        it.sample,
        it.position,
        side(&it.reference_text, it.reference, it.reference_probability),
        side(&it.candidate_text, it.candidate, it.candidate_probability),
    )
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", Untrusted(&text.replace('\n', "⏎")))
}

/// The end of a text, on one line.
fn tail(text: &str) -> String {
    let count = text.chars().count();
    let end: String = text.chars().skip(count.saturating_sub(32)).collect();
    quoted(&if count > 32 { format!("…{end}") } else { end })
}

fn decode(it: &Decode, whole: usize) -> String {
    let samples = of_samples(it.samples, whole);
    let what = format!("on {samples}, {} steps after {} tokens", it.steps, it.prompt);
    let mut table = Table::new(["decoding with a cache", &what]);
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([key, &value]);
        }
    };
    row("KL (nats)", it.kl.as_ref().map(|it| highest(it, None)));
    row("top-1 agreement", it.top1.map(percent));
    row("perplexity", it.perplexity.as_ref().and_then(perplexity));
    row("same tokens for", it.common_prefix.as_ref().map(|it| format!("{} tokens", lowest(it))));
    let cache = it.cache_kl.and_then(|it| Some((it.reference?, it.candidate?)));
    let text = |it: (f64, f64)| {
        format!("KL {} in the original, {} in the quantized", number(it.0), number(it.1))
    };
    row("with cache or without", cache.map(text));
    table.to_string()
}

fn isolation(it: &Isolation, whole: usize) -> String {
    let what = if it.measure == "kl" { "KL (nats)" } else { "noise to signal" };
    let mut table = Table::new([what, &format!("on {}", of_samples(it.samples, whole))]);
    for (key, value) in [
        ("weights alone", it.weights_only),
        ("as deployed", it.deployed),
        ("without optimizations", it.unoptimized),
    ] {
        table.row([key, &value.map_or("-".into(), number)]);
    }
    let note = it.note.as_ref().map_or(String::new(), |it| format!("{}\n", escape(it)));
    table.to_string() + &note
}

fn footprint(it: &Footprints) -> String {
    let mut table = Table::new(["alone in a process", "original", "quantized"]).right(&[1, 2]);
    let ms = |it: Option<f64>| it.map_or("-".into(), |it| format!("{it:.1} ms"));
    let size = |it: Option<u64>| it.map_or("-".into(), bytes);
    let (a, b) = (&it.reference, &it.candidate);
    table.row(["load", &ms(a.load_ms), &ms(b.load_ms)]);
    table.row(["peak memory", &size(a.peak_bytes), &size(b.peak_bytes)]);
    table.to_string()
}

fn gates(list: &[GateResult]) -> String {
    let mut table =
        Table::new(["gate", "measured", "margin", "tightest that passes", ""]).right(&[1, 2, 3]);
    for it in list {
        let verdict = match (&it.reason, it.pass) {
            (_, true) => "ok".to_owned(),
            (Some(reason), false) => format!("FAILED: {reason}"),
            (None, false) => "FAILED".to_owned(),
        };
        let shown = |it: Option<f64>| it.map_or("-".into(), number);
        let limit = it.passing_limit.map_or("-".into(), |it| it.to_string());
        table.row([&it.gate, &shown(it.measured), &shown(it.margin), &limit, &verdict]);
    }
    table.to_string()
}

/// Only what got worse, and how much did not.
fn baseline(it: &BaselineFacts) -> String {
    let worse: Vec<_> = it.rows.iter().filter(|it| !it.pass).collect();
    let (path, kept) = (escape(&it.path), grouped((it.rows.len() - worse.len()) as u64));
    if worse.is_empty() {
        return format!("baseline {path}: none of {kept} figures got worse\n");
    }
    let mut table = Table::new(["got worse", "then", "now", "limit"]).right(&[1, 2, 3]);
    for it in &worse {
        let shown = |it: Option<f64>| it.map_or("-".into(), number);
        table.row([&it.figure, &shown(it.then), &shown(it.now), &number(it.limit)]);
    }
    format!("{table}baseline {path}: {} figures got worse, {kept} did not\n", worse.len())
}

/// Of a distance: the mean and the bad end.
fn highest(it: &Summary, sure: Option<Interval>) -> String {
    let mean = match (it.mean, sure) {
        (Some(mean), Some(it)) => {
            format!("mean {} [{}, {}] · ", number(mean), number(it.low), number(it.high))
        }
        (Some(mean), None) => format!("mean {} · ", number(mean)),
        _ => String::new(),
    };
    let rest = [("median", it.median), ("p99", it.p99), ("p99.9", it.p999), ("max", it.max)];
    mean + &parts(&rest)
}

/// Of a likeness: the mean and the bad end.
fn lowest(it: &Summary) -> String {
    parts(&[("mean", it.mean), ("median", it.median), ("p1", it.p1), ("min", it.min)])
}

fn parts(list: &[(&str, Option<f64>)]) -> String {
    let part = |(name, value): &(&str, Option<f64>)| Some(format!("{name} {}", number((*value)?)));
    list.iter().filter_map(part).collect::<Vec<_>>().join(" · ")
}

fn perplexity(it: &Perplexity) -> Option<String> {
    let (reference, candidate) = (it.reference?, it.candidate?);
    let ratio = candidate / reference;
    let sure = it
        .ratio_interval
        .map_or(String::new(), |it| format!(", 95 % within ×{:.4} and ×{:.4}", it.low, it.high));
    Some(format!("{} → {} (×{ratio:.4}{sure})", number(reference), number(candidate)))
}
