//! What was decided, as the terminal, the report and the written model say it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{stored::stored, training};
use crate::{Adapted, Choosing, Correction, Goal, Mixed, Outcome, distil::Learnt};
use onnxq_ir::human::{grouped, number, of_samples};
use onnxq_numerics::solve::SolverSpec;
use onnxq_quant::{plan::PlanRow, weight::Measure};
use onnxq_report::document::{Decision, Kept};

/// Everything that is known once the model is written.
pub fn decisions(outcome: &Outcome) -> Vec<Decision> {
    let adapted = outcome.adapted.as_ref().map(activations);
    let mixed = outcome.mixed.as_ref().map(bits);
    let trained = outcome.distil.as_ref().map(training);
    let stored = stored(&outcome.nodes);
    [adapted, mixed, stored, solvers(&outcome.nodes), trained].into_iter().flatten().collect()
}

/// The longest text of a figure in the table of solvers that a model has room for.
const FIGURE: &str = "99999999.99 %";

/// Nodes of one reason that a model names.
const NAMED: usize = 64;

/// What a written model says of the decisions that made it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Told {
    pub kept: Vec<Kept>,
    pub decisions: Vec<Decision>,
}

impl Told {
    /// What is known of these rows: before the weights are written, nothing of their errors.
    pub(crate) fn of(rows: &[PlanRow], adapted: Option<&Adapted>) -> Told {
        let mut kept = super::kept(rows);
        for group in &mut kept {
            group.others = group.nodes.len().saturating_sub(NAMED);
            group.nodes.truncate(NAMED);
        }
        let decisions = adapted.map(activations).into_iter().chain(solvers(rows)).collect();
        Told { kept, decisions }
    }

    /// And what training gave back.
    pub(crate) fn with_training(mut self, learnt: Option<&Learnt>) -> Told {
        self.decisions.extend(learnt.map(training));
        self
    }

    /// With room for what solvers achieve, which is known when the weights are written.
    pub(crate) fn with_room(&self, rows: &[PlanRow]) -> String {
        let mut text = self.text();
        text.extend(std::iter::repeat_n(' ', room(rows)));
        text
    }

    /// In just so many bytes; `None` if it is longer.
    pub(crate) fn fitted(&self, bytes: usize) -> Option<String> {
        let mut text = self.text();
        text.extend(std::iter::repeat_n(' ', bytes.checked_sub(text.len())?));
        Some(text)
    }

    /// An entry of the model's metadata; nothing if it is damaged.
    pub(crate) fn read(text: Option<&String>) -> Told {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain JSON")
    }
}

/// Rows of the table; the JSON output of `quantize` has all.
const ROWS: usize = 12;

/// How activations were chosen, those that are not at their fastest candidate, the largest losses first.
fn activations(adapted: &Adapted) -> Decision {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    adapted.activations.iter().for_each(|row| *counts.entry(&row.choice).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut decision = Decision::new("activations");
    let before = &mut decision.before;
    before.push(format!("activations as the data recommends: {}", counts.join(" · ")));
    if adapted.extra_time > 0.0 {
        let percent = 100.0 * adapted.extra_time;
        before.push(format!("predicted: {percent:.1} % more time than the fastest"));
    }
    if let Some(last) = adapted.tried.iter().rfind(|tried| tried.reached) {
        let raised = last.raised;
        before.push(format!(
            "goal reached with {}, {raised} not at their fastest candidate",
            last.measured
        ));
    }
    before.extend(adapted.bias_correction.as_ref().map(correction));
    slower(decision, &adapted.activations)
}

fn correction(it: &Correction) -> String {
    let (from, to) = (number(it.loss), number(it.corrected_loss));
    match it.kept {
        true => format!("{} biases corrected: loss {from} → {to}", it.biases),
        false => format!("biases left as they are: corrected, loss {from} would be {to}"),
    }
}

fn slower(decision: Decision, list: &[Choosing]) -> Decision {
    let mut slower: Vec<&Choosing> = list.iter().filter(|row| row.choice != row.fastest).collect();
    let lost = |row: &Choosing| row.losses.as_ref().unwrap_or(&row.errors)[&row.fastest];
    slower.sort_by(|a, b| lost(b).total_cmp(&lost(a)).then(a.activation.cmp(&b.activation)));
    if slower.is_empty() {
        return decision;
    }
    let header = ["node", "becomes", "error", "if fastest", "outlier rows"];
    let mut decision = decision.words(&header);
    for row in slower.iter().take(ROWS) {
        let others = row.nodes.len() - 1;
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        let percent = |name: &str| format!("{:.2} %", 100.0 * row.errors[name]);
        let instead = format!("{} as {}", percent(&row.fastest), row.fastest);
        let ratio = match row.row_ratio > 1.0 {
            true => format!("{:.1}×", row.row_ratio),
            false => "-".to_owned(),
        };
        let node = row.nodes[0].clone() + &more;
        decision.row(vec![node, row.choice.clone(), percent(&row.choice), instead, ratio]);
    }
    let left = slower.len().saturating_sub(ROWS);
    if left > 0 {
        decision.after.push(format!("and {left} more: see --json"));
    }
    decision
}

/// The mixes that were possible, and which one was chosen.
fn bits(mixed: &Mixed) -> Decision {
    let goal = match mixed.goal {
        Goal::MaxSize(size) => format!("at most {} bytes", grouped(size)),
        Goal::MaxKl(nats) => format!("a KL of at most {nats}"),
        Goal::TargetBpw(bits) => format!("at most {bits} bits per weight"),
    };
    let samples = of_samples(mixed.samples, mixed.data_samples);
    let header = ["bytes", "bits per weight", "predicted loss"];
    let mut decision = Decision::new("bits").numbers(&header).words(&[""]);
    let loss = number(mixed.loss);
    decision.before.push(format!("mix for {goal}; loss measured on {samples}: {loss}"));
    for point in &mixed.table {
        let chosen = if point.chosen { "chosen" } else { "" };
        let bpw = format!("{:.3}", point.bpw);
        decision.row(vec![grouped(point.bytes), bpw, number(point.loss), chosen.to_owned()]);
    }
    decision
}

/// How far the outputs of quantized weights are off: one line per solver and measure, nothing if all
/// weights were rounded to nearest.
fn solvers(rows: &[PlanRow]) -> Option<Decision> {
    let mut groups: BTreeMap<(&str, &str), Vec<&PlanRow>> = BTreeMap::new();
    for row in rows {
        if let (Some(solver), Some(error)) = (row.solver, &row.error) {
            groups.entry((solver, measure(error.measure))).or_default().push(row);
        }
    }
    if groups.is_empty() {
        return None;
    }
    let mut decision = table_of_solvers();
    for ((solver, measure), mut list) in groups {
        let error = |row: &PlanRow| row.error.map_or(0.0, |error| error.solved);
        let ratio = |row: &PlanRow| row.error.map_or(1.0, |error| error.ratio);
        list.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let median = median(list.iter().map(|row| error(row)).collect());
        let worst = list[list.len() - 1];
        decision.row(vec![
            solver.to_owned(),
            list.len().to_string(),
            measure.to_owned(),
            format!("{:.2} %", 100.0 * median.sqrt()),
            format!("×{:.2}", ratio(list[list.len() / 2])),
            format!("×{:.2}", ratio(worst)),
            worst.node.clone(),
        ]);
    }
    Some(decision)
}

fn table_of_solvers() -> Decision {
    let mut decision = Decision::new("solvers")
        .words(&["solver"])
        .numbers(&["weights"])
        .words(&["error of"])
        .numbers(&["median", "to rtn's", "worst"])
        .words(&["at"]);
    // Errors are roots of mean squares; ratios are of squares, as losses are.
    let note = "median: rms error in percent of the rms value; to rtn's: ratio of squares";
    decision.after.push(note.to_owned());
    decision
}

/// Bytes that the table of solvers takes at most: a row for each solver and measure.
fn room(rows: &[PlanRow]) -> usize {
    let rtn = SolverSpec::Rtn.name();
    let solved = rows.iter().filter_map(|row| Some((row.solver.filter(|it| *it != rtn)?, row)));
    let mut longest: BTreeMap<&str, &str> = BTreeMap::new();
    for (solver, row) in solved {
        let node = longest.entry(solver).or_default();
        let length = |name: &str| serde_json::json!(name).to_string().len();
        if length(&row.node) > length(node) {
            *node = &row.node;
        }
    }
    if longest.is_empty() {
        return 0;
    }
    let mut table = table_of_solvers();
    for (solver, node) in longest {
        for it in [Measure::Hessian, Measure::Diagonal, Measure::Weight] {
            let (count, figure) = (rows.len().to_string(), FIGURE.to_owned());
            let cells = [solver.to_owned(), count, measure(it).to_owned(), figure.clone()];
            table.row([&cells[..], &[figure.clone(), figure, node.to_owned()]].concat());
        }
    }
    // A comma before it.
    serde_json::to_string(&table).expect("plain JSON").len() + 1
}

fn measure(measure: Measure) -> &'static str {
    match measure {
        Measure::Hessian => "output",
        Measure::Diagonal => "output, as if uncorrelated",
        Measure::Weight => "weight",
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::weight::WeightError;

    #[test]
    fn solvers_are_summed_up_with_their_worst() {
        let m = onnxq_ir::text::parse(
            "main (float[n,2] x) => (float[n,2] y) <float[2,2] w> { y = MatMul (x, w) }",
        )
        .unwrap();
        let row = |node: &str, solved: f64| PlanRow {
            node: node.into(),
            solver: Some("gptq"),
            error: Some(WeightError {
                measure: Measure::Hessian,
                rtn: 0.04,
                solved,
                ratio: solved / 0.04,
            }),
            ..PlanRow::of(&m, m.nodes()[0])
        };
        let decision = solvers(&[row("a", 0.01), row("b", 0.02), row("c", 0.0004)]).unwrap();
        let expected = ["gptq", "3", "output", "10.00 %", "×0.25", "×0.50", "b"];
        assert_eq!(decision.rows, [expected.map(str::to_owned).to_vec()]);
        // A model has room for it before anything is solved, and says it in as many bytes.
        let solved = [row("a", 0.01), row("b", 0.02), row("c\"", 1e8)];
        let before = solved.clone().map(|row| PlanRow { error: None, ..row });
        let place = Told::of(&before, None).with_room(&before);
        let told = Told::of(&solved, None);
        let text = told.fitted(place.len()).unwrap();
        assert_eq!(text.len(), place.len());
        assert_eq!(Told::read(Some(&text)).decisions, told.decisions);
        assert_eq!(told.fitted(told.text().len() - 1), None);
        assert_eq!(solvers(&[PlanRow::of(&m, m.nodes()[0])]), None);
    }

    #[test]
    fn what_a_model_tells_leads_back_and_damage_is_nothing() {
        let told = Told { decisions: vec![Decision::new("bits").words(&["a"])], ..Told::default() };
        assert_eq!(Told::read(Some(&told.text())).decisions, told.decisions);
        assert!(Told::read(Some(&"{".to_owned())).decisions.is_empty());
        assert!(Told::read(None).kept.is_empty());
    }
}
