//! The verdict in words: what was asked, and what was missed.

use super::{Report, Verdict};
use onnxq_ir::human::{grouped, number};
use onnxq_quant::recipe::Gate;

/// Names that a line has room for.
const NAMED: usize = 3;

impl Report {
    /// `PASS`, `FAIL`: the same word wherever the verdict is shown.
    pub fn verdict_word(&self) -> &'static str {
        match self.verdict {
            Verdict::NotJudged => "NOT JUDGED",
            Verdict::Pass => "PASS",
            Verdict::PassWithWarnings => "PASS WITH WARNINGS",
            Verdict::Fail => "FAIL",
        }
    }

    /// Why, in one line: `top1 0.9025, needs >=0.95`; `6 of 11 figures worse than the baseline: kl.mean, …`.
    pub fn verdict_reason(&self) -> String {
        match self.verdict {
            Verdict::NotJudged => "no gates, no baseline".to_owned(),
            Verdict::Fail => {
                let parts = [missed_gates(self), worse_figures(self)];
                parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
            }
            Verdict::Pass | Verdict::PassWithWarnings => {
                let gates = match self.gates.len() {
                    0 => None,
                    1 => Some("1 gate holds".to_owned()),
                    all => Some(format!("{} gates hold", grouped(all as u64))),
                };
                let baseline = self.baseline.as_ref().map(|baseline| {
                    format!("{} figures no worse than the baseline", baseline.rows.len())
                });
                [gates, baseline].into_iter().flatten().collect::<Vec<_>>().join(" · ")
            }
        }
    }
}

fn missed_gates(report: &Report) -> Option<String> {
    let missed: Vec<String> = report
        .gates
        .iter()
        .filter(|gate| !gate.pass)
        .map(|result| match (&result.reason, result.gate.parse::<Gate>()) {
            (None, Ok(gate)) => {
                let subject = gate.subject();
                let limit = result.gate.strip_prefix(&subject).unwrap_or(&result.gate);
                let measured = result.measured.map_or("not finite".to_owned(), number);
                format!("{subject} {measured}, needs {limit}")
            }
            (Some(reason), _) => format!("{}: {reason}", result.gate),
            (None, Err(_)) => result.gate.clone(),
        })
        .collect();
    let all = report.gates.len();
    match &missed[..] {
        [] => None,
        [one] if all == 1 => Some(one.clone()),
        list => Some(format!("{} of {all} gates missed: {}", list.len(), some(list, NAMED, "; "))),
    }
}

fn worse_figures(report: &Report) -> Option<String> {
    let rows = &report.baseline.as_ref()?.rows;
    let worse: Vec<String> =
        rows.iter().filter(|row| !row.pass).map(|row| row.figure.clone()).collect();
    let (count, all) = (worse.len(), rows.len());
    (count > 0).then(|| {
        format!("{count} of {all} figures worse than the baseline: {}", some(&worse, NAMED, ", "))
    })
}

/// The first few of a list.
fn some(list: &[String], most: usize, between: &str) -> String {
    let shown = list[..list.len().min(most)].join(between);
    if list.len() > most { format!("{shown}{between}…") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BaselineFacts, BaselineRow, GateResult};

    fn gate(text: &str, measured: f64, pass: bool) -> GateResult {
        GateResult { gate: text.into(), measured: Some(measured), pass, ..GateResult::default() }
    }

    fn judged(gates: Vec<GateResult>, baseline: Option<BaselineFacts>) -> String {
        let mut report = Report { gates, baseline, ..Report::default() };
        report.judge();
        format!("{} · {}", report.verdict_word(), report.verdict_reason())
    }

    #[test]
    fn without_a_judge_there_is_no_verdict() {
        assert_eq!(judged(Vec::new(), None), "NOT JUDGED · no gates, no baseline");
    }

    #[test]
    fn what_was_missed_is_named() {
        let missed = || gate("logits:top1>=0.95", 0.9025, false);
        let text = judged(vec![missed()], None);
        assert_eq!(text, "FAIL · logits:top1 0.9025, needs >=0.95");
        let text = judged(vec![gate("kl<=1", 0.5, true), missed()], None);
        assert_eq!(text, "FAIL · 1 of 2 gates missed: logits:top1 0.9025, needs >=0.95");
        let row = |figure: &str, pass| BaselineRow {
            figure: figure.into(),
            pass,
            ..BaselineRow::default()
        };
        let rows = ["a", "b", "c", "d"].map(|figure| row(figure, false));
        let rows = [rows.to_vec(), vec![row("e", true)]].concat();
        let text = judged(Vec::new(), Some(BaselineFacts { rows, ..BaselineFacts::default() }));
        assert_eq!(text, "FAIL · 4 of 5 figures worse than the baseline: a, b, c, …");
    }

    #[test]
    fn what_holds_is_counted() {
        let kept = || gate("kl<=1", 0.5, true);
        assert_eq!(judged(vec![kept()], None), "PASS · 1 gate holds");
        let baseline = BaselineFacts { rows: vec![], ..BaselineFacts::default() };
        let text = judged(vec![kept(), kept()], Some(baseline));
        assert_eq!(text, "PASS · 2 gates hold · 0 figures no worse than the baseline");
    }
}
