//! What a pipeline should point at: missed gates, regressions, warnings, suggestions.

use super::number::{maybe, number};
use crate::{
    BaselineRow, GateResult, Report,
    document::{Suggestion, Warning},
};
use onnxq_quant::recipe::gate::Gate;

/// The worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    Error,
    Warning,
    Note,
}

/// One thing to point at. Its texts may hold anything.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Finding<'a> {
    pub level: Level,
    /// A metric, the code of a warning, or `suggestion`: letters, digits and `_` only.
    pub rule: &'a str,
    /// The output, node or file it is about.
    pub at: Option<&'a str>,
    pub message: String,
}

/// The worst first.
pub(super) fn findings(report: &Report) -> Vec<Finding<'_>> {
    let gates = report.gates.iter().filter(|it| !it.pass).map(of_gate);
    let rows = report.baseline.iter().flat_map(|it| &it.rows);
    let rows = rows.filter(|it| !it.pass).map(of_row);
    let warnings = report.warnings.iter().map(of_warning);
    let suggestions = report.attribution.iter().flat_map(|it| &it.suggestions);
    let suggestions = suggestions.map(of_suggestion);
    gates.chain(rows).chain(warnings).chain(suggestions).collect()
}

fn of_gate(it: &GateResult) -> Finding<'_> {
    let (level, rule) = (Level::Error, metric(&it.gate));
    Finding { level, rule, at: it.output.as_deref(), message: missed(it) }
}

/// Why a gate failed, and what would pass.
pub(super) fn missed(it: &GateResult) -> String {
    if let Some(reason) = &it.reason {
        return format!("{} failed: {reason}", it.gate);
    }
    let mut text = format!("{} failed: measured {}", it.gate, maybe(it.measured));
    if let Some(margin) = it.margin {
        text += &format!(", {} beyond the limit", number(margin.abs()));
    }
    if let Some(limit) = it.passing_limit {
        text += &format!("; {limit} would pass");
    }
    text
}

fn of_row(it: &BaselineRow) -> Finding<'_> {
    let (level, rule, message) = (Level::Error, metric(&it.figure), regressed(it));
    Finding { level, rule, at: output(&it.figure), message }
}

pub(super) fn regressed(it: &BaselineRow) -> String {
    let (then, now) = (maybe(it.then), maybe(it.now));
    format!("{} got worse: {now}, was {then}; the limit is {}", it.figure, number(it.limit))
}

fn of_warning(it: &Warning) -> Finding<'_> {
    let (rule, at) = (plain(&it.code).unwrap_or("warning"), it.at.as_deref());
    Finding { level: Level::Warning, rule, at, message: it.message.clone() }
}

fn of_suggestion(it: &Suggestion) -> Finding<'_> {
    let (rule, at) = ("suggestion", Some(&*it.node));
    Finding { level: Level::Note, rule, at, message: it.text.clone() }
}

/// `kl` of `logits:kl.mean<=0.05`; a report that someone edited may say anything.
fn metric(gate: &str) -> &str {
    let known = gate.parse::<Gate>().ok().and_then(|it| {
        let at = gate.rfind(&it.metric)?;
        gate.get(at..at + it.metric.len())
    });
    let subject = gate.rsplit(':').next().unwrap_or_default();
    let subject = known.unwrap_or_else(|| subject.split('.').next().unwrap_or_default());
    plain(subject).unwrap_or("gate")
}

fn output(figure: &str) -> Option<&str> {
    figure.rsplit_once(':').map(|it| it.0)
}

fn plain(text: &str) -> Option<&str> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    (!text.is_empty() && text.len() <= 40 && text.bytes().all(is_plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_metrics_or_a_word_of_ours() {
        let cases = [
            ("logits:kl.mean<=0.05", "kl"),
            ("top1>=0.9", "top1"),
            ("logits:kl.mean", "kl"),
            ("size_ratio", "size_ratio"),
            ("::error::pwn", "pwn"),
            ("a b", "gate"),
            ("", "gate"),
        ];
        for (gate, rule) in cases {
            assert_eq!(metric(gate), rule, "{gate}");
        }
    }

    #[test]
    fn a_missed_gate_says_what_would_pass() {
        let gate = GateResult {
            gate: "kl.mean<=0.05".into(),
            measured: Some(0.0612),
            limit: 0.05,
            margin: Some(-0.0112),
            passing_limit: Some(0.0613),
            ..GateResult::default()
        };
        let text =
            "kl.mean<=0.05 failed: measured 0.06120, 0.01120 beyond the limit; 0.0613 would pass";
        assert_eq!(missed(&gate), text);
    }
}
