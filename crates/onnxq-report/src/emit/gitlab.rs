//! GitLab's code quality: a list of findings, as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Emitter, candidate,
    findings::{Finding, Level, findings},
};
use crate::Report;
use onnxq_ir::untrusted::escape;

pub(super) const GITLAB: Emitter = Emitter {
    name: "gitlab",
    file: "gl-code-quality-report.json",
    endings: &[],
    about: "Code quality of GitLab",
    common: false,
    printed: true,
    emit,
};

fn emit(report: &Report) -> String {
    let mut seen = BTreeMap::new();
    let list: Vec<Value> = findings(report)
        .iter()
        .map(|it| {
            let key = (it.rule, it.at);
            let nth = seen.entry(key).and_modify(|it| *it += 1).or_insert(0);
            entry(report, it, *nth)
        })
        .collect();
    serde_json::to_string_pretty(&list).expect("plain JSON") + "\n"
}

fn entry(report: &Report, it: &Finding, nth: usize) -> Value {
    let severity = match it.level {
        Level::Error => "critical",
        Level::Warning => "minor",
        Level::Note => "info",
    };
    let at = it.at.map_or(String::new(), |at| format!("{at}: "));
    json!({
        "description": escape(&(at + &it.message)),
        "check_name": it.rule,
        "fingerprint": fingerprint(it, nth),
        "severity": severity,
        "location": {"path": candidate(report), "lines": {"begin": 1}},
    })
}

/// The same for the same trouble in the next run, whatever was measured.
pub(super) fn fingerprint(it: &Finding, nth: usize) -> String {
    let mut hash = Sha256::new();
    for part in [it.rule, it.at.unwrap_or_default(), &nth.to_string()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
