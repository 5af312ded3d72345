//! JUnit XML: a test case for each gate, and for each figure that a baseline has.

use super::{
    Emitter, candidate,
    findings::{missed, regressed},
    number::maybe,
    xml::text,
};
use crate::{BaselineRow, GateResult, Report};

struct Case {
    name: String,
    /// Why it failed, in one line and in full.
    failure: Option<(String, String)>,
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
    // Some readers take a file without a test case for a broken run.
    if suites.iter().all(|it| it.1.is_empty()) {
        suites = vec![("comparison", vec![Case { name: "compared".into(), failure: None }])];
    }
    let cases = suites.iter().flat_map(|it| &it.1);
    let (tests, failures) = counts(&cases.collect::<Vec<_>>());
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out += &format!("<testsuites name=\"onnxq\" tests=\"{tests}\" failures=\"{failures}\">\n");
    suites.iter().for_each(|it| out += &suite(report, it.0, &it.1));
    out + "</testsuites>\n"
}

fn counts(cases: &[&Case]) -> (usize, usize) {
    (cases.len(), cases.iter().filter(|it| it.failure.is_some()).count())
}

fn suite(report: &Report, name: &str, cases: &[Case]) -> String {
    let (tests, failures) = counts(&cases.iter().collect::<Vec<_>>());
    let model = text(candidate(report));
    let mut out = format!(
        "  <testsuite name=\"onnxq {name}: {model}\" tests=\"{tests}\" failures=\"{failures}\">\n"
    );
    for it in cases {
        let head = format!("    <testcase classname=\"onnxq.{name}\" name=\"{}\"", text(&it.name));
        out += &match &it.failure {
            None => head + "/>\n",
            Some((message, full)) => {
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

fn of_gate(it: &GateResult) -> Case {
    let at = it.output.as_ref().map_or(String::new(), |output| format!(" ({output})"));
    let failure = (!it.pass).then(|| (missed(it), facts(it)));
    Case { name: format!("{}{at}", it.gate), failure }
}

fn facts(it: &GateResult) -> String {
    let plain = |value: Option<f64>| value.map_or("none".to_owned(), |it| it.to_string());
    format!(
        "measured: {}\nlimit: {}\nmargin: {}\nsmallest limit that passes: {}",
        plain(it.measured),
        it.limit,
        plain(it.margin),
        plain(it.passing_limit),
    )
}

fn of_row(it: &BaselineRow) -> Case {
    let facts = || format!("then: {}\nnow: {}\nlimit: {}", maybe(it.then), maybe(it.now), it.limit);
    Case { name: it.figure.clone(), failure: (!it.pass).then(|| (regressed(it), facts())) }
}
