//! What was decided, as text.

use super::Table;
use onnxq_ir::untrusted::escape;
use onnxq_report::document::Decision;

pub(crate) fn show(list: &[Decision]) -> String {
    list.iter().map(|decision| format!("\n{}", one(decision))).collect()
}

fn one(decision: &Decision) -> String {
    let lines = |list: &[String]| list.iter().map(|line| escape(line) + "\n").collect::<String>();
    let columns = decision.columns.iter();
    let right = columns.clone().enumerate().filter(|(_, column)| column.number);
    let labels: Vec<&str> = columns.map(|column| &*column.label).collect();
    let mut table = Table::of(&labels).right(&right.map(|(at, _)| at).collect::<Vec<_>>());
    decision.rows.iter().for_each(|row| table.push(row));
    let table = if decision.rows.is_empty() { String::new() } else { table.to_string() };
    lines(&decision.before) + &table + &lines(&decision.after)
}
