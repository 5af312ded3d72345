//! What was decided while the candidate was made.

use super::{Cell, Limits, Section, Table};
use crate::{Report, document::Decision};

pub(super) fn decisions(report: &Report, limits: Limits) -> Option<Section> {
    let mut section = Section::new("decisions", "What was decided").brief();
    for decision in &report.decisions {
        for line in &decision.before {
            section = section.note(Some(line.clone()));
        }
        section = section.table(table(decision, limits));
        for line in &decision.after {
            section = section.note(Some(line.clone()));
        }
    }
    section.filled()
}

/// Ids are fixed texts of the program, kinds come from the report.
fn table(decision: &Decision, limits: Limits) -> Table {
    let (id, caption) = match &*decision.kind {
        "activations" => ("activation", "Activations that are not at their fastest candidate"),
        "bits" => ("mix", "Mixes of bits"),
        "training" => ("training", "Loss while training, and of held-out samples"),
        _ => ("solver", "How far quantized weights are off"),
    };
    let mut table = Table::new(id, caption);
    for column in &decision.columns {
        let label = [&*column.label];
        table = if column.number { table.numbers(&label) } else { table.words(&label) };
    }
    let width = table.columns.len();
    table.fill(decision.rows.iter(), limits, |row| {
        let cells = row.iter().map(|cell| Cell::name(cell));
        let missing = std::iter::repeat_with(|| Cell::name(""));
        cells.chain(missing).take(width).collect()
    })
}
