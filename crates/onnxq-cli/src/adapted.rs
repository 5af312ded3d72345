//! How activations were chosen, as text.

use std::collections::BTreeMap;

use super::Table;
use onnxq_ir::human::number;
use onnxq_pipeline::{Adapted, Choosing, Correction};

/// Rows of the table; the JSON output has all.
const ROWS: usize = 12;

pub fn show(it: &Adapted) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    it.activations.iter().for_each(|it| *counts.entry(&it.choice).or_default() += 1);
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut out = format!("\nactivations as the data recommends: {}\n", counts.join(" · "));
    if it.extra_time > 0.0 {
        out += &format!("predicted: {:.1} % more time than the fastest\n", 100.0 * it.extra_time);
    }
    if let Some(last) = it.tried.iter().rfind(|it| it.reached) {
        let raised = last.raised;
        out += &format!(
            "goal reached with {}, {raised} not at their fastest candidate\n",
            last.measured
        );
    }
    out += &it.bias_correction.as_ref().map(correction).unwrap_or_default();
    out + &reasons(&it.activations)
}

fn correction(it: &Correction) -> String {
    let (from, to) = (number(it.loss), number(it.corrected_loss));
    match it.kept {
        true => format!("{} biases corrected: loss {from} → {to}\n", it.biases),
        false => format!("biases left as they are: corrected, loss {from} would be {to}\n"),
    }
}

/// Those that are not at their fastest candidate, the largest losses first.
fn reasons(list: &[Choosing]) -> String {
    let mut slower: Vec<&Choosing> = list.iter().filter(|it| it.choice != it.fastest).collect();
    let lost = |it: &Choosing| it.losses.as_ref().unwrap_or(&it.errors)[&it.fastest];
    slower.sort_by(|a, b| lost(b).total_cmp(&lost(a)).then(a.activation.cmp(&b.activation)));
    if slower.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["node", "becomes", "error", "if fastest", "outlier rows"]);
    for it in slower.iter().take(ROWS) {
        let others = it.nodes.len() - 1;
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        let percent = |name: &str| format!("{:.2} %", 100.0 * it.errors[name]);
        let instead = format!("{} as {}", percent(&it.fastest), it.fastest);
        let ratio = if it.row_ratio > 1.0 { format!("{:.1}×", it.row_ratio) } else { "-".into() };
        let node = it.nodes[0].clone() + &more;
        table.row([&node, &it.choice, &percent(&it.choice), &instead, &ratio]);
    }
    let left = slower.len().saturating_sub(ROWS);
    let left = if left > 0 { format!("and {left} more: see --json\n") } else { String::new() };
    format!("{table}{left}")
}
