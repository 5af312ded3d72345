//! SARIF 2.1.0: what a code scanner shows beside a change.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    Emitter, candidate,
    findings::{Finding, Level, findings},
    gitlab::fingerprint,
    number::count,
};
use crate::Report;
use onnxq_ir::{diag::Code, untrusted::escape};
use onnxq_quant::recipe::metrics::METRICS;
use onnxq_rewrite::lint::CHECKS;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What RFC 3986 does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// GitHub shows no more of a run.
const MAX: usize = 5000;

pub(super) const SARIF: Emitter = Emitter {
    name: "sarif",
    file: "report.sarif",
    endings: &["sarif"],
    about: "SARIF 2.1.0 for code scanning",
    common: true,
    printed: true,
    emit,
};

fn emit(report: &Report) -> String {
    let all = findings(report);
    let shown = &all[..all.len().min(MAX)];
    let rules: BTreeSet<&str> = shown.iter().map(|it| it.rule).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let mut seen = BTreeMap::new();
    let results: Vec<Value> = shown
        .iter()
        .map(|it| {
            let nth = seen.entry((it.rule, it.at)).and_modify(|it| *it += 1).or_insert(0);
            result(report, it, &rules, *nth)
        })
        .collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "onnxq",
                "semanticVersion": report.environment.onnxq,
                "rules": rules.iter().map(|it| rule(it)).collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": true,
                "toolExecutionNotifications": notifications(all.len() - shown.len()),
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&log).expect("plain JSON") + "\n"
}

fn notifications(left_out: usize) -> Vec<Value> {
    let text = format!("{} more results were left out", count(left_out));
    let note = json!({"level": "warning", "message": {"text": text}});
    if left_out > 0 { vec![note] } else { Vec::new() }
}

fn rule(id: &str) -> Value {
    let metric = METRICS.iter().find(|it| it.name == id).map(|it| it.help);
    let check = CHECKS.iter().find(|it| it.code == id).map(|it| it.help);
    let code = id.parse().ok().map(Code::text);
    let help = metric.or(check).or(code).unwrap_or(match id {
        "suggestion" => "what would make the candidate more accurate, and what it costs",
        _ => "see the report",
    });
    let full = format!("{}.", sentence(help));
    // What GitHub shows beside a finding, and refuses a rule without.
    let how = format!("{full} `onnxq explain {id}` says more; the report has the figures.");
    json!({
        "id": id,
        "shortDescription": {"text": help},
        "fullDescription": {"text": full},
        "help": {"text": how.replace('`', ""), "markdown": how},
    })
}

/// With a capital at its start and no full stop at its end.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut rest = text.chars();
    let first = rest.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + rest.as_str()
}

fn result(report: &Report, it: &Finding, rules: &[&str], nth: usize) -> Value {
    let level = match it.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    };
    // Code scanning wants a line, though a model has none.
    let mut location = json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(candidate(report))},
        "region": {"startLine": 1},
    }});
    if let Some(at) = it.at {
        let name = json!({"name": at, "fullyQualifiedName": at, "kind": "element"});
        location["logicalLocations"] = json!([name]);
    }
    json!({
        "ruleId": it.rule,
        "ruleIndex": rules.binary_search(&it.rule).expect("rules are of results"),
        "level": level,
        "message": {"text": message(&it.message)},
        "locations": [location],
        "partialFingerprints": {"onnxq/v1": fingerprint(it, nth)},
    })
}

/// Viewers make links of `[text](target)`, which no untrusted name may become.
fn message(text: &str) -> String {
    escape(text).replace('\\', r"\\").replace('[', r"\[").replace(']', r"\]")
}

/// A file name as a relative reference.
fn uri(name: &str) -> String {
    match name {
        "" => "model.onnx".to_owned(),
        name => utf8_percent_encode(name, RESERVED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_references() {
        assert_eq!(uri("a b/ü%.onnx"), "a%20b%2F%C3%BC%25.onnx");
        assert_eq!(uri(""), "model.onnx");
    }
}
