//! A report against an older one: what got worse.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    document::Report,
    figures::Comparison,
    lookup::{self, Measured},
};
use crate::summary::finite;
use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_quant::recipe::metrics::{Better, METRICS, Metric, Slack};

/// The older report, and each figure that both have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BaselineFacts {
    /// As it was given.
    pub path: String,
    pub onnxq: String,
    /// Of its candidate's model file.
    pub candidate_sha256: String,
    pub rows: Vec<BaselineRow>,
}

/// One figure, then and now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BaselineRow {
    /// As a gate names it: `logits:kl.mean`.
    pub figure: String,
    pub then: Option<f64>,
    pub now: Option<f64>,
    /// The worst value that is no regression.
    pub limit: f64,
    /// Not worse than then.
    pub better: bool,
    pub pass: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the baseline was measured on other data or against another original: its {0} differs")]
pub struct OtherBaseline(&'static str);

impl Diagnostic for OtherBaseline {
    fn code(&self) -> Code {
        Code::E618
    }

    fn hint(&self) -> Option<String> {
        Some("figures of different data say nothing of each other; make a new baseline".into())
    }
}

/// Each watched figure of the older report against the same one now. One that is gone is a
/// regression: nobody knows that it is none.
pub fn compare(path: &str, then: &Report, now: &Report) -> Result<BaselineFacts, OtherBaseline> {
    let data = |it: &Report| it.provenance.evaluation.sha256.clone();
    let samples = |it: &Report| it.figures.samples;
    let original = |it: &Report| first_digest(&it.models.reference.files);
    for (what, same) in [
        ("data", data(then) == data(now)),
        ("number of samples", samples(then) == samples(now)),
        ("original", original(then) == original(now)),
    ] {
        if !same {
            return Err(OtherBaseline(what));
        }
    }
    Ok(BaselineFacts {
        path: path.to_owned(),
        onnxq: then.environment.onnxq.clone(),
        candidate_sha256: first_digest(&then.models.candidate.files),
        rows: rows(&then.figures, &now.figures),
    })
}

fn first_digest(files: &[super::document::FileFacts]) -> String {
    files.first().map(|it| it.sha256.clone()).unwrap_or_default()
}

fn rows(then: &Comparison, now: &Comparison) -> Vec<BaselineRow> {
    let mut rows = Vec::new();
    for (metric, slack) in METRICS.iter().filter_map(|it| Some((it, it.slack?))) {
        let statistic = metric.statistics.first().copied();
        let current = lookup::find(now, metric.name, statistic);
        for old in lookup::find(then, metric.name, statistic) {
            let new = current.iter().find(|it| it.output == old.output);
            rows.extend(row(metric, slack, statistic, &old, new));
        }
    }
    rows
}

/// `None` if there was no number then.
fn row(
    metric: &Metric,
    slack: Slack,
    statistic: Option<&str>,
    then: &Measured,
    now: Option<&Measured>,
) -> Option<BaselineRow> {
    let output = then.output.as_ref().map_or(String::new(), |it| format!("{it}:"));
    let statistic = statistic.map_or(String::new(), |it| format!(".{it}"));
    let old = Some(then.value).filter(|it| !it.is_nan() && then.reason.is_none())?;
    let limit = slack.limit(old, metric.better);
    let new = now.filter(|it| it.reason.is_none()).map_or(f64::NAN, |it| it.value);
    let keeps = |limit: f64| match metric.better {
        Better::Lower => new <= limit,
        Better::Higher => new >= limit,
    };
    Some(BaselineRow {
        figure: format!("{output}{}{statistic}", metric.name),
        then: finite(old),
        now: finite(new),
        // Without any error then, nothing finite is as good.
        limit: finite(limit).unwrap_or(f64::MAX),
        better: keeps(old),
        // A time is worse if it is surely so.
        pass: keeps(limit) || now.and_then(|it| it.sure).is_some_and(|it| it.low <= limit),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::figures::OutputMetrics, *};
    use crate::summary::Summary;

    fn report(kl: f32, top1: f64) -> Report {
        let mut it = Report::default();
        let output =
            OutputMetrics { kl: Summary::of(&[kl]), top1: Some(top1), ..Default::default() };
        it.figures.outputs.insert("logits".into(), output);
        it
    }

    fn failed(then: &Report, now: &Report) -> Vec<String> {
        let facts = compare("old.json", then, now).unwrap();
        facts.rows.into_iter().filter(|it| !it.pass).map(|it| it.figure).collect()
    }

    #[test]
    fn a_little_worse_is_no_regression() {
        let then = report(0.01, 0.95);
        assert!(failed(&then, &report(0.0109, 0.946)).is_empty());
        assert_eq!(failed(&then, &report(0.012, 0.95)), ["logits:kl.mean"]);
        assert_eq!(failed(&then, &report(0.001, 0.9)), ["logits:top1"]);
    }

    #[test]
    fn what_is_gone_is_a_regression() {
        let facts = compare("old.json", &report(0.01, 0.95), &Report::default()).unwrap();
        assert!(facts.rows.len() >= 2 && facts.rows.iter().all(|it| !it.pass));
    }

    #[test]
    fn other_data_is_no_baseline() {
        let mut other = report(0.01, 0.95);
        other.provenance.evaluation.sha256 = "1".into();
        let error = compare("old.json", &other, &report(0.01, 0.95)).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().ends_with("its data differs")),
            (Code::E618, true)
        );
    }
}
