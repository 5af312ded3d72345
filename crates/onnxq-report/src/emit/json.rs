//! The report itself, as JSON.

use crate::Report;

pub fn emit(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report is plain data") + "\n"
}
