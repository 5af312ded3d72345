//! The report itself, as JSON.

use super::Emitter;
use crate::Report;

pub const JSON: Emitter = Emitter {
    name: "json",
    file: "report.json",
    endings: &["json"],
    about: "The report itself",
    common: true,
    printed: true,
    emit,
};

fn emit(report: &Report) -> String {
    serde_json::to_string_pretty(report).expect("a report is plain data") + "\n"
}
