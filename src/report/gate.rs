//! Whether a comparison keeps the limits of a gate.

use serde::{Deserialize, Serialize};

use super::{
    figures::{Comparison, Latency, OutputMetrics},
    metrics::Summary,
};
use crate::recipe::gate::Gate;
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

impl Gate {
    /// The worst of the outputs that have this metric decides; what was not measured fails.
    pub fn check(&self, comparison: &Comparison) -> GateResult {
        let measured = self.measured(comparison);
        let worst = measured.into_iter().reduce(|worst, it| {
            let is_worse =
                if self.min.is_some() { it.value < worst.value } else { it.value > worst.value };
            if it.reason.is_some() || worst.reason.is_none() && is_worse { it } else { worst }
        });
        let result = |output, value: f64, pass, reason| GateResult {
            gate: self.to_string(),
            output,
            measured: Some(value).filter(|it| it.is_finite()),
            limit: self.limit(),
            pass,
            reason,
            ..GateResult::default()
        };
        if let Err(error) = self.validate() {
            return result(None, f64::NAN, false, Some(error.to_string()));
        }
        match worst {
            Some(it) => {
                let pass = it.reason.is_none() && self.allows(it.value);
                result(it.output, it.value, pass, it.reason)
            }
            None => {
                let reason = match &self.output {
                    Some(_) => "nothing of that name has this metric",
                    None => "it was not measured",
                };
                result(self.output.clone(), f64::NAN, false, Some(reason.into()))
            }
        }
    }

    /// The metric on each thing that has it and that the gate is about.
    fn measured(&self, comparison: &Comparison) -> Vec<Measured> {
        let statistic = self
            .statistic
            .as_deref()
            .or_else(|| self.known().ok().and_then(|it| it.statistics.first().copied()));
        match self.metric.as_str() {
            "size_ratio" => {
                let ratio = comparison.size.and_then(|it| it.ratio);
                ratio
                    .map(|value| Measured { output: None, value, reason: None })
                    .into_iter()
                    .collect()
            }
            "latency_ratio" => self.of_latency(comparison, |it| it.ratio),
            "speedup" => self.of_latency(comparison, |it| it.speedup),
            metric => {
                let wanted = |name: &str| self.output.as_deref().is_none_or(|it| it == name);
                let outputs = comparison.outputs.iter().filter(|(name, _)| wanted(name));
                let value = |(name, it): (&String, &OutputMetrics)| {
                    Measured::of(name, it, metric, statistic)
                };
                outputs.filter_map(value).collect()
            }
        }
    }

    /// Without a name the first, which is the longest input, counts.
    fn of_latency(
        &self,
        comparison: &Comparison,
        get: fn(&Latency) -> Option<f64>,
    ) -> Vec<Measured> {
        let wanted = |it: &&Latency| self.output.as_ref().is_none_or(|name| *name == it.input);
        let latency = comparison.latency.iter().find(wanted);
        let value = latency.and_then(|it| {
            Some(Measured { output: Some(it.input.clone()), value: get(it)?, reason: None })
        });
        value.into_iter().collect()
    }
}

struct Measured {
    output: Option<String>,
    value: f64,
    reason: Option<String>,
}

impl Measured {
    /// `None` if the metric does not apply to this output.
    fn of(
        name: &str,
        it: &OutputMetrics,
        metric: &str,
        statistic: Option<&str>,
    ) -> Option<Measured> {
        let summary = |it: &Option<Summary>| of_summary(it.as_ref()?, statistic?);
        let value = match metric {
            "cosine" => summary(&it.cosine),
            "equal" => it.equal,
            "kl" => summary(&it.kl),
            "max_abs" => it.max_abs,
            "mean_abs" => it.mean_abs,
            "perplexity" => it.perplexity.map(|it| it.candidate.unwrap_or(f64::NAN)),
            "perplexity_ratio" => it.perplexity.map(|it| it.ratio.unwrap_or(f64::NAN)),
            "pooled_cosine" => summary(&it.pooled_cosine),
            "sqnr_db" => it.sqnr_db.or((it.exact && it.max_abs.is_some()).then_some(f64::INFINITY)),
            "top1" => it.top1,
            _ => None,
        };
        // Figures leave broken rows out, so no figure may excuse them.
        let broken = it.nonfinite.broken_rows;
        let reason = (broken > 0 && it.equal.is_none())
            .then(|| format!("the candidate has NaN or Inf in {broken} rows"));
        if value.is_none() && reason.is_none() {
            return None;
        }
        Some(Measured { output: Some(name.into()), value: value.unwrap_or(f64::NAN), reason })
    }
}

fn of_summary(summary: &Summary, statistic: &str) -> Option<f64> {
    match statistic {
        "max" => summary.max,
        "mean" => summary.mean,
        "median" => summary.median,
        "min" => summary.min,
        "p1" => summary.p1,
        "p99" => summary.p99,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::figures::{NonFinite, Perplexity, Size},
        *,
    };
    use crate::recipe::gate::METRICS;

    fn output() -> OutputMetrics {
        let summary = Summary::of(&[0.25, 0.5, 0.75]);
        OutputMetrics {
            cosine: summary,
            pooled_cosine: summary,
            sqnr_db: Some(20.0),
            max_abs: Some(1.0),
            mean_abs: Some(0.5),
            kl: summary,
            top1: Some(0.9),
            equal: Some(0.9),
            perplexity: Some(Perplexity {
                reference: Some(10.0),
                candidate: Some(11.0),
                ratio: Some(1.1),
                ..Perplexity::default()
            }),
            ..OutputMetrics::default()
        }
    }

    fn comparison() -> Comparison {
        let latency = |input: &str, ratio: f64| Latency {
            input: input.into(),
            reference_ms: Some(2.0),
            candidate_ms: Some(1.0),
            ratio: Some(ratio),
            speedup: Some(ratio.recip()),
            repeats: 15,
            ..Latency::default()
        };
        Comparison {
            samples: 3,
            size: Some(Size::new(100, 25)),
            outputs: [("logits".to_owned(), output())].into(),
            latency: vec![latency("1x128", 0.5), latency("1x16", 0.8)],
            ..Comparison::default()
        }
    }

    fn check(gate: &str, comparison: &Comparison) -> GateResult {
        gate.parse::<Gate>().unwrap().check(comparison)
    }

    #[test]
    fn every_metric_and_statistic_is_looked_up() {
        for metric in METRICS {
            let subjects = metric.statistics.iter().map(|it| format!("{}.{it}", metric.name));
            for subject in subjects.chain([metric.name.to_owned()]) {
                let result = check(&format!("{subject}<=1e9"), &comparison());
                assert!(result.pass && result.measured.is_some(), "{subject}: {result:?}");
            }
        }
    }

    #[test]
    fn limits_decide() {
        let it = comparison();
        assert!(check("kl.mean<=0.5", &it).pass && !check("kl.mean<0.5", &it).pass);
        assert!(check("size_ratio<=0.25", &it).pass && !check("top1>=0.97", &it).pass);
        let short = check("1x16:latency_ratio.p50<=0.7", &it);
        assert_eq!((short.pass, short.measured, short.limit), (false, Some(0.8), 0.7));
        assert_eq!(short.output.as_deref(), Some("1x16"));
    }

    #[test]
    fn the_worst_output_decides() {
        let mut it = comparison();
        let worse = OutputMetrics { sqnr_db: Some(3.0), ..output() };
        it.outputs.insert("aux".into(), worse);
        let result = check("sqnr_db>=10", &it);
        assert_eq!((result.pass, result.output.as_deref()), (false, Some("aux")));
        assert!(check("logits:sqnr_db>=10", &it).pass);
    }

    #[test]
    fn what_was_not_measured_never_passes() {
        let empty = Comparison::default();
        for gate in ["kl<=1", "size_ratio<=1", "speedup>=0", "sqnr_db>=-99", "equal>=0"] {
            let result = check(gate, &empty);
            assert!(!result.pass && result.measured.is_none() && result.reason.is_some(), "{gate}");
        }
        assert!(!check("hidden:kl<=1", &comparison()).pass);
    }

    #[test]
    fn an_exact_output_has_no_noise() {
        let mut it = comparison();
        let exact = OutputMetrics { sqnr_db: None, exact: true, max_abs: Some(0.0), ..output() };
        it.outputs.insert("logits".into(), exact);
        let result = check("sqnr_db>=99", &it);
        assert!(result.pass && result.measured.is_none());
    }

    #[test]
    fn broken_rows_fail_every_gate_on_their_output() {
        let mut it = comparison();
        let nonfinite = NonFinite { candidate: 1, rows: 1, broken_rows: 1, ..NonFinite::default() };
        it.outputs.insert("logits".into(), OutputMetrics { nonfinite, equal: None, ..output() });
        let result = check("kl.mean<=1e9", &it);
        assert!(!result.pass && result.reason.unwrap().contains("1 rows"));
        // Even where nothing finite was left to measure.
        let lost = OutputMetrics { nonfinite, ..OutputMetrics::default() };
        it.outputs.insert("aux".into(), lost);
        assert!(!check("sqnr_db>=0", &it).pass);
    }
}
