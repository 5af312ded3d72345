//! JUnit XML: a test case for each gate, and for each figure that a baseline has.

use super::{
    Emitter, candidate,
    findings::{missed, regressed},
    number::maybe,
    xml::text,
};
use crate::{BaselineRow, GateResult, Report, document::ModelFacts};

struct Case {
    name: String,
    /// Why it failed, in one line and in full.
    failure: Option<(String, String)>,
    /// Why nothing was judged.
    skipped: Option<String>,
}

pub(super) const JUNIT: Emitter = Emitter {
    name: "junit",
    file: "junit.xml",
    endings: &["xml"],
    about: "A test case for each gate",
    common: true,
    printed: true,
    emit,
};

fn emit(report: &Report) -> String {
    let mut suites = vec![("gates", report.gates.iter().map(of_gate).collect::<Vec<_>>())];
    if let Some(baseline) = &report.baseline {
        suites.push(("baseline", baseline.rows.iter().map(of_row).collect()));
    }
    suites.retain(|suite| !suite.1.is_empty());
    // Some readers take a file without a test case for a broken run, and one that passed for a verdict.
    if suites.is_empty() {
        let skipped = Some(report.verdict_reason());
        let case = Case { name: "judged".into(), failure: None, skipped };
        suites = vec![("comparison", vec![case])];
    }
    let cases = suites.iter().flat_map(|it| &it.1);
    let counted = counts(&cases.collect::<Vec<_>>());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out += &format!("<testsuites name=\"onnxq\" {counted}>\n");
    suites.iter().for_each(|it| out += &suite(report, it.0, &it.1));
    out + "</testsuites>\n"
}

fn counts(cases: &[&Case]) -> String {
    let tests = cases.len();
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    format!("tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\"")
}

fn suite(report: &Report, name: &str, cases: &[Case]) -> String {
    let counted = counts(&cases.iter().collect::<Vec<_>>());
    let model = text(candidate(report));
    let mut out = format!("  <testsuite name=\"onnxq {name}: {model}\" {counted}>\n");
    out += &properties(report);
    for it in cases {
        let head = format!("    <testcase classname=\"onnxq.{name}\" name=\"{}\"", text(&it.name));
        out += &match (&it.failure, &it.skipped) {
            (None, None) => head + "/>\n",
            (None, Some(why)) => {
                format!("{head}>\n      <skipped message=\"{}\"/>\n    </testcase>\n", text(why))
            }
            (Some((message, full)), _) => {
                let lines: Vec<String> = full.lines().map(text).collect();
                let (message, full) = (text(message), lines.join("\n"));
                format!(
                    "{head}>\n      <failure message=\"{message}\">{full}</failure>\n    </testcase>\n"
                )
            }
        };
    }
    out + "  </testsuite>\n"
}

/// What was compared: readers show it beside the result.
fn properties(report: &Report) -> String {
    let (models, environment) = (&report.models, &report.environment);
    let sha256 = |model: &ModelFacts| model.files.first().map(|file| file.sha256.clone());
    let recipe = report.provenance.recipe.as_ref().map(|recipe| recipe.name.clone());
    let rows = [
        ("onnxq", Some(environment.onnxq.clone())),
        ("recipe", recipe),
        ("original_sha256", sha256(&models.reference)),
        ("candidate_sha256", sha256(&models.candidate)),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let rows: String = rows
        .map(|(name, value)| {
            format!("      <property name=\"{name}\" value=\"{}\"/>\n", text(&value))
        })
        .collect();
    format!("    <properties>\n{rows}    </properties>\n")
}

fn of_gate(it: &GateResult) -> Case {
    let at = it.output.as_ref().map_or(String::new(), |output| format!(" ({output})"));
    let failure = (!it.pass).then(|| (missed(it), facts(it)));
    Case { name: format!("{}{at}", it.gate), failure, skipped: None }
}

fn facts(it: &GateResult) -> String {
    let plain = |value: Option<f64>| value.map_or("none".to_owned(), |it| it.to_string());
    format!(
        "measured: {}\nlimit: {}\nmargin: {}\ntightest limit that passes: {}",
        plain(it.measured),
        it.limit,
        plain(it.margin),
        plain(it.passing_limit),
    )
}

fn of_row(it: &BaselineRow) -> Case {
    let facts = || format!("then: {}\nnow: {}\nlimit: {}", maybe(it.then), maybe(it.now), it.limit);
    let failure = (!it.pass).then(|| (regressed(it), facts()));
    Case { name: it.figure.clone(), failure, skipped: None }
}
