//! Whether a comparison keeps the limits of a gate.

use serde::{Deserialize, Serialize};

use super::{
    figures::Comparison,
    lookup::{self, Measured},
};
use crate::summary::finite;
use onnxq_ir::{human::number, untrusted::Untrusted};
use onnxq_quant::recipe::gate::Gate;
use schemars::JsonSchema;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GateResult {
    /// The gate as text.
    pub gate: String,
    /// The output (or input shape, for latency) that decided.
    pub output: Option<String>,
    /// `null` if nothing was measured, or if it was infinite.
    pub measured: Option<f64>,
    pub limit: f64,
    /// How far the measured number is on the right side of the limit; negative if on the wrong.
    pub margin: Option<f64>,
    /// The strictest limit that would pass, rounded to the lenient side.
    pub passing_limit: Option<f64>,
    pub pass: bool,
    /// Why it could not pass, if not because of the measured number.
    pub reason: Option<String>,
}

/// Metrics of what is read as logits or probabilities.
const OF_LOGITS: [&str; 6] =
    ["kl", "perplexity", "perplexity_difference", "perplexity_ratio", "top1", "top5"];

/// The worst of the outputs that have this metric decides; what was not measured fails.
pub fn check(gate: &Gate, comparison: &Comparison) -> GateResult {
    let measured = match gate.validate() {
        Ok(()) => lookup::find(comparison, &gate.metric, gate.statistic()),
        Err(error) => return failed(gate, error.to_string()),
    };
    let wanted = |it: &Measured| gate.output.as_deref().is_none_or(|name| it.is_called(name));
    let mut measured: Vec<Measured> = measured.into_iter().filter(wanted).collect();
    if gate.output.is_none() && lookup::is_of_runs(&gate.metric) {
        // Of inputs of several lengths the first, which is the longest, counts.
        measured.truncate(1);
    }
    let worst = measured.into_iter().reduce(|worst, it| {
        let is_worse =
            if gate.min.is_some() { it.value < worst.value } else { it.value > worst.value };
        if it.reason.is_some() || worst.reason.is_none() && is_worse { it } else { worst }
    });
    match worst {
        Some(it) => result(gate, it),
        None => failed(gate, absent(gate, comparison)),
    }
}

/// Why there is no such figure, and which there are instead.
fn absent(gate: &Gate, comparison: &Comparison) -> String {
    let output = gate.output.as_deref();
    let known = lookup::figures_of_outputs(comparison, output);
    if !lookup::is_of_outputs(&gate.metric) || output.is_none() && known.is_empty() {
        return "it was not measured".into();
    }
    let whose =
        output.map_or("no output".to_owned(), |it| format!("nothing called `{}`", Untrusted(it)));
    let metric = &gate.metric;
    let mut why = match &known[..] {
        [] => format!("{whose} was measured"),
        known => format!("{whose} has {metric}; there are {}", known.join(", ")),
    };
    if OF_LOGITS.contains(&&**metric) && !known.is_empty() && !known.contains(&"kl") {
        why += ". Logits are known by their names: export with output_names=[\"logits\"], and with \
                input_names=[\"input_ids\"] if the input is tokens";
    }
    why
}

fn result(gate: &Gate, mut it: Measured) -> GateResult {
    let limit = gate.limit();
    it.reason = it.reason.take().or_else(|| noisy(gate, &it));
    let margin = if gate.min.is_some() { it.value - limit } else { limit - it.value };
    GateResult {
        gate: gate.to_string(),
        output: it.output,
        measured: finite(it.value),
        limit,
        margin: finite(margin),
        passing_limit: gate.passing_limit(it.value).filter(|_| it.reason.is_none()),
        pass: it.reason.is_none() && gate.allows(it.value),
        reason: it.reason,
    }
}

/// Why a time cannot be judged: the limit lies between what it may be.
fn noisy(gate: &Gate, it: &Measured) -> Option<String> {
    let range = it.sure?;
    let (low, high) = (number(range.low), number(range.high));
    (gate.allows(range.low) != gate.allows(range.high)).then(|| {
        format!("NOISY: between {low} and {high} (95 %), so measure again on a quieter machine")
    })
}

fn failed(gate: &Gate, reason: String) -> GateResult {
    let (output, limit) = (gate.output.clone(), gate.limit());
    let gate = gate.to_string();
    GateResult { gate, output, limit, reason: Some(reason), ..GateResult::default() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::figures::{
            CacheKl, Decode, Footprint, Footprints, Interval, Isolation, Kernels, Latency,
            NonFinite, OutputMetrics, Perplexity, Size,
        },
        *,
    };
    use crate::summary::Summary;
    use onnxq_quant::recipe::metrics::METRICS;

    fn perplexity() -> Perplexity {
        let interval = Some(Interval { low: 1.0, high: 1.2 });
        Perplexity {
            reference: Some(10.0),
            candidate: Some(11.0),
            ratio: Some(1.1),
            difference: Some(1.0),
            ratio_interval: interval,
            difference_interval: interval,
        }
    }

    fn output() -> OutputMetrics {
        let summary = Summary::of(&[0.25, 0.5, 0.75]);
        OutputMetrics {
            cosine: summary,
            pooled_cosine: summary,
            rank_correlation: Some(0.9),
            sqnr_db: Some(20.0),
            psnr_db: Some(30.0),
            iou: Some(0.9),
            max_abs: Some(1.0),
            mean_abs: Some(0.5),
            kl: summary,
            kl_interval: Some(Interval { low: 0.4, high: 0.6 }),
            top1: Some(0.9),
            top5: Some(0.95),
            equal: Some(0.9),
            perplexity: Some(perplexity()),
            ..OutputMetrics::default()
        }
    }

    fn comparison() -> Comparison {
        let latency = |input: &str, ratio: f64| Latency {
            input: input.into(),
            reference_ms: Some(2.0),
            candidate_ms: Some(1.0),
            ratio: Some(ratio),
            ratio_spread: Some(Interval { low: ratio * 0.9, high: ratio * 1.1 }),
            speedup: Some(ratio.recip()),
            repeats: 15,
            candidate_runs_ms: vec![1.0, 2.0],
            ..Latency::default()
        };
        let summary = Summary::of(&[0.25, 0.5, 0.75]);
        let loss = Some(0.1);
        let footprint =
            Footprint { load_ms: Some(1.0), peak_bytes: Some(100), base_bytes: Some(50) };
        Comparison {
            samples: 3,
            size: Some(Size::new(100, 25)),
            outputs: [
                ("logits".to_owned(), output()),
                ("map".to_owned(), OutputMetrics { equal: None, ..output() }),
            ]
            .into(),
            latency: vec![latency("1x128", 0.5), latency("1x16", 0.8)],
            decode: Some(Decode {
                kl: summary,
                top1: Some(0.9),
                perplexity: Some(perplexity()),
                common_prefix: summary,
                cache_kl: Some(CacheKl { reference: Some(0.0), candidate: Some(0.1) }),
                ..Decode::default()
            }),
            isolation: Some(Isolation {
                weights_only: loss,
                deployed: loss,
                unoptimized: loss,
                ..Isolation::default()
            }),
            footprint: Some(Footprints { reference: footprint, candidate: footprint }),
            kernels: Some(Kernels { samples: 10, avx512_vnni: 5, ..Kernels::default() }),
        }
    }

    fn checked(gate: &str, comparison: &Comparison) -> GateResult {
        check(&gate.parse::<Gate>().unwrap(), comparison)
    }

    #[test]
    fn every_metric_and_statistic_is_looked_up() {
        for metric in METRICS {
            let subjects = metric.statistics.iter().map(|it| format!("{}.{it}", metric.name));
            for subject in subjects.chain([metric.name.to_owned()]) {
                let result = checked(&format!("{subject}<=1e9"), &comparison());
                let named = result.pass && result.measured.is_some() && result.margin.is_some();
                assert!(named && result.passing_limit.is_some(), "{subject}: {result:?}");
            }
        }
    }

    #[test]
    fn limits_decide() {
        let it = comparison();
        assert!(checked("kl.mean<=0.5", &it).pass && !checked("kl.mean<0.5", &it).pass);
        assert!(checked("size_ratio<=0.25", &it).pass && !checked("top1>=0.97", &it).pass);
        let short = checked("1x16:latency_ratio.p50<=0.7", &it);
        assert_eq!((short.pass, short.measured, short.limit), (false, Some(0.8), 0.7));
        assert_eq!(short.output.as_deref(), Some("1x16"));
    }

    #[test]
    fn runs_are_found_by_shape_and_by_phase() {
        let mut it = comparison();
        let decode = Latency { phase: crate::Phase::Decode, ..it.latency[1].clone() };
        it.latency.push(Latency { input: "1x1+128".into(), ratio: Some(0.3), ..decode });
        assert_eq!(checked("latency_ratio<=1", &it).measured, Some(0.5));
        assert_eq!(checked("decode:latency_ratio<=1", &it).measured, Some(0.3));
        let missed = checked("1x1+128:latency_ratio<=0.2", &it);
        assert_eq!((missed.pass, missed.passing_limit), (false, Some(0.3)));
        assert!((missed.margin.unwrap() + 0.1).abs() < 1e-12);
    }

    #[test]
    fn the_worst_output_decides() {
        let mut it = comparison();
        let worse = OutputMetrics { sqnr_db: Some(3.0), ..output() };
        it.outputs.insert("aux".into(), worse);
        let result = checked("sqnr_db>=10", &it);
        assert_eq!((result.pass, result.output.as_deref()), (false, Some("aux")));
        assert!(checked("logits:sqnr_db>=10", &it).pass);
    }

    #[test]
    fn what_was_not_measured_never_passes() {
        let empty = Comparison::default();
        for gate in ["kl<=1", "size_ratio<=1", "speedup>=0", "sqnr_db>=-99", "equal>=0"] {
            let result = checked(gate, &empty);
            assert!(!result.pass && result.measured.is_none() && result.reason.is_some(), "{gate}");
        }
        assert!(!checked("hidden:kl<=1", &comparison()).pass);
    }

    #[test]
    fn a_figure_that_no_output_has_is_answered_with_those_there_are() {
        let mut measured = comparison();
        let values = OutputMetrics {
            sqnr_db: Some(20.0),
            max_abs: Some(1.0),
            cosine: Summary::of(&[0.5]),
            ..OutputMetrics::default()
        };
        measured.outputs.insert("hidden".into(), values.clone());
        let reason = |gate: &str, it: &Comparison| checked(gate, it).reason.unwrap();
        let names = ". Logits are known by their names: export with output_names=[\"logits\"], and \
                     with input_names=[\"input_ids\"] if the input is tokens";
        let there_are = "has kl; there are cosine, max_abs, nonfinite_rows, sqnr_db";
        assert_eq!(
            reason("hidden:kl<=1", &measured),
            format!("nothing called `hidden` {there_are}{names}")
        );
        assert_eq!(reason("other:sqnr_db>=1", &measured), "nothing called `other` was measured");
        measured.outputs = [("hidden".to_owned(), values)].into();
        assert_eq!(reason("kl<=1", &measured), format!("no output {there_are}{names}"));
        assert!(reason("iou>=0.5", &measured).starts_with("no output has iou; there are cosine"));
        assert_eq!(reason("cache_kl<=1", &Comparison::default()), "it was not measured");
    }

    #[test]
    fn an_exact_output_has_no_noise() {
        let mut it = comparison();
        let exact = OutputMetrics { sqnr_db: None, exact: true, max_abs: Some(0.0), ..output() };
        it.outputs.insert("logits".into(), exact);
        let result = checked("logits:sqnr_db>=99", &it);
        assert!(result.pass && result.measured.is_none());
    }

    #[test]
    fn broken_rows_fail_every_gate_on_their_output() {
        let mut it = comparison();
        let nonfinite = NonFinite { candidate: 1, rows: 1, broken_rows: 1, ..NonFinite::default() };
        it.outputs.insert("logits".into(), OutputMetrics { nonfinite, equal: None, ..output() });
        let result = checked("kl.mean<=1e9", &it);
        assert!(!result.pass && result.reason.unwrap().contains("1 rows"));
        // Even where nothing finite was left to measure.
        let lost = OutputMetrics { nonfinite, ..OutputMetrics::default() };
        it.outputs.insert("aux".into(), lost);
        assert!(!checked("sqnr_db>=0", &it).pass);
    }
}
