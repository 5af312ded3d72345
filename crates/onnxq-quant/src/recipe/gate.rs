//! Gates: limits that a quantized model must keep, as `logits:kl.mean<=0.01`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{Better, METRICS, Metric, Unit, metric};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    human,
    suggest::suggest,
    untrusted::Untrusted,
};
use onnxq_numerics::specs::{Settings, Wrong};

/// A limit for one measured number. In a recipe: `{metric: kl, statistic: mean, max: 0.01}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What is measured: `kl`, `top1`, `cosine`, `sqnr_db`, `size_ratio`, …
    pub metric: String,
    /// The output it is measured on; without it, the worst of all outputs counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Which summary of many values: `mean`, `min`, `p99`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistic: Option<String>,
    /// The measured number must not be below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The measured number must not be above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The limit itself fails too: `<` instead of `<=`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GateError {
    #[error("`{}` is not of the form `metric<=limit`", Untrusted(.0))]
    Form(String),
    #[error("`{}` in gate `{}` is not a finite number", Untrusted(limit), Untrusted(gate))]
    Limit { gate: String, limit: String },
    #[error("gate on `{}` needs one limit, `min` or `max`", Untrusted(.0))]
    Limits(String),
    #[error("unknown metric `{}`", Untrusted(.0))]
    Metric(String),
    #[error("metric `{metric}` has no statistic `{}`", Untrusted(statistic))]
    Statistic { metric: &'static str, statistic: String },
    #[error("gate `{}` {why}", Untrusted(gate))]
    Senseless { gate: String, why: String, hint: String },
}

impl Diagnostic for GateError {
    fn code(&self) -> Code {
        Code::E706
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            GateError::Form(_) => "write `kl.mean<=0.01` or `logits:top1>=0.97`".into(),
            GateError::Limit { .. } | GateError::Limits(_) => return None,
            GateError::Senseless { hint, .. } => hint.clone(),
            GateError::Metric(name) => {
                let known: Vec<&str> = METRICS.iter().map(|it| it.name).collect();
                let known = known.join(", ");
                match nearest(name) {
                    Some(it) => format!("did you mean `{it}`?"),
                    None => format!("known are {known}"),
                }
            }
            GateError::Statistic { metric, .. } => match self::metric(metric)?.statistics {
                [] => format!("`{metric}` is a single number"),
                list => format!("`{metric}` has {}", list.join(", ")),
            },
        })
    }
}

impl Settings for Gate {
    fn check(&self) -> Result<(), Wrong> {
        self.validate().map_err(|error| Wrong::new("", error.to_string()))
    }
}

impl Gate {
    /// Whether metric, statistic and limits are such that it can be checked.
    pub fn validate(&self) -> Result<(), GateError> {
        let metric = self.known()?;
        let statistic = self.statistic.as_deref();
        if let Some(it) = statistic.filter(|it| !metric.statistics.contains(it)) {
            let (metric, statistic) = (metric.name, it.to_owned());
            return Err(GateError::Statistic { metric, statistic });
        }
        match (self.min, self.max) {
            (Some(it), None) | (None, Some(it)) if it.is_finite() => Ok(()),
            _ => Err(GateError::Limits(self.metric.clone())),
        }
    }

    /// Refuses what no result can hold, and what only bad results hold: both are slips.
    pub fn sensible(&self) -> Result<(), GateError> {
        let metric = self.known()?;
        let (subject, limit) = (self.subject(), self.limit());
        let refused = |why: String, hint: String| {
            Err(GateError::Senseless { gate: self.to_string(), why, hint })
        };
        match (metric.better, self.max) {
            (Better::Higher, Some(_)) => {
                let why = format!("asks for a bad result: a higher {} is better", metric.name);
                return refused(why, format!("write `{subject}>={limit}`"));
            }
            (Better::Lower, None) => {
                let why = format!("asks for a bad result: a lower {} is better", metric.name);
                return refused(why, format!("write `{subject}<={limit}`"));
            }
            _ => {}
        }
        match metric.unit {
            Unit::Fraction if limit > 1.0 => {
                let why = format!("cannot hold: {} is a fraction from 0 to 1", metric.name);
                let percent = limit / 100.0;
                refused(why, format!("write `{subject}>={percent}` or `{subject}>={limit}%`"))
            }
            // No model of language is nearly certain of every token.
            Unit::Perplexity if limit < 1.2 => {
                let why = "cannot hold: perplexity is no ratio, and at least 1".to_owned();
                let ratio = subject.replace("perplexity", "perplexity_ratio");
                refused(why, format!("write `{ratio}<={limit}` to compare with the original"))
            }
            _ => Ok(()),
        }
    }

    /// What is limited, without the limit: `logits:kl.mean`.
    pub fn subject(&self) -> String {
        let text = self.to_string();
        let end = text.rfind(['<', '>']).unwrap_or(text.len());
        text[..end].to_owned()
    }

    pub fn known(&self) -> Result<&'static Metric, GateError> {
        metric(&self.metric).ok_or_else(|| GateError::Metric(self.metric.clone()))
    }

    /// The limit of a valid gate.
    pub fn limit(&self) -> f64 {
        self.min.or(self.max).unwrap_or(f64::NAN)
    }

    /// The statistic that counts, `None` for a single number.
    pub fn statistic(&self) -> Option<&str> {
        let first = || self.known().ok()?.statistics.first().copied();
        self.statistic.as_deref().or_else(first)
    }

    /// The strictest limit of four digits that would pass; `None` if none would.
    pub fn passing_limit(&self, measured: f64) -> Option<f64> {
        let exponent = match measured.abs() {
            it if !it.is_finite() => return None,
            0.0 => -9.0,
            it => it.log10().floor() - 3.0,
        };
        // Through text, so that the number is the one with few digits.
        let (digits, step) = ((-exponent).max(0.0) as usize, 10f64.powf(exponent));
        let round = |steps: f64| format!("{:.digits$}", steps * step).parse::<f64>().ok();
        let with = |limit: &f64| Gate {
            min: self.min.map(|_| *limit),
            max: self.max.map(|_| *limit),
            ..self.clone()
        };
        let base = measured / step;
        // From the strict side, because the quotient may be a hair off.
        let mut tries = [-1.0, 0.0, 1.0, 2.0].into_iter().filter_map(|more| {
            round(if self.min.is_some() { base.floor() - more } else { base.ceil() + more })
        });
        tries.find(|it| with(it).allows(measured))
    }

    /// NaN never passes.
    pub fn allows(&self, measured: f64) -> bool {
        let strict = !self.exclusive;
        let min = self.min.is_none_or(|it| measured > it || strict && measured == it);
        let max = self.max.is_none_or(|it| measured < it || strict && measured == it);
        min && max && !measured.is_nan()
    }
}

impl FromStr for Gate {
    type Err = GateError;

    fn from_str(text: &str) -> Result<Gate, GateError> {
        let form = || GateError::Form(text.to_owned());
        // The name of an output may hold anything, the rest may not.
        let at = text.rfind(['<', '>']).ok_or_else(form)?;
        let (subject, operator) = text.split_at(at);
        let (exclusive, limit) = match operator[1..].strip_prefix('=') {
            Some(it) => (false, it.trim()),
            None => (true, operator[1..].trim()),
        };
        let (output, measure) = match subject.trim().rsplit_once(':') {
            Some((output, measure)) => (Some(output.trim().to_owned()), measure.trim()),
            None => (None, subject.trim()),
        };
        let (metric, statistic) = match measure.split_once('.') {
            Some((metric, statistic)) => (metric, Some(statistic.to_owned())),
            None => (measure, None),
        };
        if metric.is_empty() || output.as_deref() == Some("") {
            return Err(form());
        }
        let number = self::number(limit, metric)
            .ok_or_else(|| GateError::Limit { gate: text.to_owned(), limit: limit.to_owned() })?;
        let is_min = operator.starts_with('>');
        let gate = Gate {
            metric: metric.to_owned(),
            output,
            statistic,
            min: is_min.then_some(number),
            max: (!is_min).then_some(number),
            exclusive,
        };
        gate.validate()?;
        Ok(gate)
    }
}

/// A limit: a number, `95 %` of what is a fraction, `5MB` of what counts bytes.
fn number(text: &str, metric: &str) -> Option<f64> {
    let unit = self::metric(metric).map(|metric| metric.unit);
    let plain = |text: &str| text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    match (plain(text), unit) {
        (None, Some(Unit::Fraction)) => Some(plain(text.strip_suffix('%')?)? / 100.0),
        (None, Some(Unit::Bytes)) => human::parse_bytes(text).map(|bytes| bytes as f64),
        (number, _) => number,
    }
}

/// What [`from_str`](Gate::from_str) reads.
impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(output) = &self.output {
            write!(f, "{output}:")?;
        }
        f.write_str(&self.metric)?;
        if let Some(statistic) = &self.statistic {
            write!(f, ".{statistic}")?;
        }
        let operator = if self.min.is_some() { '>' } else { '<' };
        write!(f, "{operator}{}{}", if self.exclusive { "" } else { "=" }, self.limit())
    }
}

/// The known metric that a mistyped one was probably meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let known = || METRICS.iter().map(|it| it.name);
    // The first letters are too far from the whole name to be an error of typing.
    let begins = |it: &&str| name.len() >= 2 && it.starts_with(name);
    known().find(begins).or_else(|| suggest(name, known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_struct_lead_to_each_other() {
        for text in [
            "kl.mean<=0.01",
            "top1>=0.97",
            "sqnr_db>=20",
            "cosine.min>=0.99",
            "size_ratio<0.3",
            "latency_ratio.p50<=0.7",
            "perplexity_ratio<=1.02",
            "model/head:0:kl.mean>-1e-3",
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.to_string().parse::<Gate>().unwrap(), gate, "{text}");
            let json = serde_json::to_string(&gate).unwrap();
            assert_eq!(serde_json::from_str::<Gate>(&json).unwrap(), gate, "{json}");
        }
        let gate: Gate = " model/head:0:kl.p99 <= 0.5 ".parse().unwrap();
        assert_eq!(gate.to_string(), "model/head:0:kl.p99<=0.5");
        let gate: Gate = serde_json::from_str(r#"{"metric": "kl", "max": 0.05}"#).unwrap();
        assert_eq!(gate.to_string(), "kl<=0.05");
    }

    #[test]
    fn sizes_have_the_units_of_flags() {
        let gate: Gate = "size_bytes<=4.6MB".parse().unwrap();
        assert_eq!(gate.max, Some(4_600_000.0));
        assert!("kl.mean<=4.6MB".parse::<Gate>().is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |it: &str| it.parse::<Gate>().unwrap_err();
        assert_eq!(error("kl.mean=0.01"), GateError::Form("kl.mean=0.01".into()));
        assert_eq!(error("<=3"), GateError::Form("<=3".into()));
        assert!(matches!(error("kl<=NaN"), GateError::Limit { .. }));
        assert!(matches!(error("kl<=1e999"), GateError::Limit { .. }));
        assert!(matches!(error("top1.mean>=1"), GateError::Statistic { metric: "top1", .. }));
        assert_eq!(error("sqnr>=20").hint().unwrap(), "did you mean `sqnr_db`?");
        assert!(error("accuracy>=1").hint().unwrap().starts_with("known are cache_kl"));
    }

    #[test]
    fn what_cannot_hold_or_asks_for_the_worse_is_refused_with_what_was_meant() {
        let hint = |text: &str| {
            let gate: Gate = text.parse().unwrap();
            gate.sensible().unwrap_err().hint().unwrap()
        };
        assert_eq!(hint("top1>=95"), "write `top1>=0.95` or `top1>=95%`");
        assert_eq!(hint("logits:top1<=0.95"), "write `logits:top1>=0.95`");
        assert_eq!(hint("kl.p99>=0.05"), "write `kl.p99<=0.05`");
        let ratio = "write `logits:perplexity_ratio<=1.02` to compare with the original";
        assert_eq!(hint("logits:perplexity<=1.02"), ratio);
        for text in ["top1>=0.95", "sqnr_db>=20", "kl<=0.01", "perplexity<=40", "speedup>=1.5"] {
            assert!(text.parse::<Gate>().unwrap().sensible().is_ok(), "{text}");
        }
    }

    #[test]
    fn limits_have_the_units_of_their_metric() {
        let limit = |text: &str| text.parse::<Gate>().map(|gate| gate.limit());
        assert_eq!(limit("top1>=95%"), Ok(0.95));
        assert_eq!(limit("top1>= 97.5 %"), Ok(0.975));
        assert_eq!(limit("size_bytes<=5MB"), Ok(5e6));
        assert_eq!(limit("memory_bytes<=1GiB"), Ok((1u64 << 30) as f64));
        assert!(limit("kl<=5%").is_err() && limit("kl<=5MB").is_err());
    }

    #[test]
    fn the_limit_itself_passes_unless_excluded() {
        let allows = |gate: &str, it| gate.parse::<Gate>().unwrap().allows(it);
        assert!(allows("kl<=1", 1.0) && !allows("kl<1", 1.0) && allows("kl<1", 0.5));
        assert!(allows("kl>=1", 1.0) && !allows("kl>1", 1.0) && !allows("kl>1", 0.5));
        assert!(!allows("kl<=1", f64::NAN) && !allows("kl>=1", f64::NAN));
        assert!(allows("sqnr_db>=20", f64::INFINITY));
    }

    #[test]
    fn a_gate_has_exactly_one_limit() {
        let mut gate: Gate = "kl<=1".parse().unwrap();
        gate.min = Some(0.0);
        assert_eq!(gate.validate(), Err(GateError::Limits("kl".into())));
        (gate.min, gate.max) = (None, None);
        assert_eq!(gate.validate(), Err(GateError::Limits("kl".into())));
    }

    #[test]
    fn the_passing_limit_passes_and_is_tight() {
        let check = |text: &str, measured: f64, expected: f64| {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.passing_limit(measured), Some(expected), "{text} {measured}");
        };
        check("kl<=0.001", 0.004_123_4, 0.004_124);
        check("kl<=0.001", 0.0041, 0.0041);
        check("kl<0.001", 0.0041, 0.004_101);
        check("top1>=0.99", 0.954_321, 0.9543);
        check("top1>0.99", 0.9543, 0.9542);
        check("size_bytes<=1", 4_090_123.0, 4_091_000.0);
        check("sqnr_db>=0", -3.21, -3.21);
        check("kl<=1", 0.0, 0.0);
        let gate: Gate = "kl<=1".parse().unwrap();
        assert_eq!(gate.passing_limit(f64::NAN), None);
    }
}
