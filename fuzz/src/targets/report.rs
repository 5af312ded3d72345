//! report.json: read, judged, and rendered by every emitter.

use std::path::Path;

use onnxq_quant::recipe::Gate;
use onnxq_report::{Report, baseline, document::parse, emit::EMITTERS, gate};

use super::{Outcome, Target, markup, refusal};
use crate::{corpus, mutate::Grammar};

pub(super) const TARGET: Target = Target {
    name: "report",
    about: "report.json: read, judge, compare with itself, and every emitter",
    run,
    grammar: Grammar::Json,
    seeds,
    words: &[
        "onnxq.report/1",
        "<script>alert(1)</script>",
        "</style><script>",
        "\\\"><svg onload=x>",
        "'><img src=x onerror=x>",
        "]]>",
        "<!--",
        "-->",
        "&lt;",
        "&#0;",
        "\\u0000",
        "\\ud800",
        "\\uffff",
        "\\u202e",
        "\\u0085",
        "\\u2028",
        "\\n::error::x",
        "\\r\\n##[error]x",
        "|",
        "`",
        "[x](javascript:y)",
        "{{ 7*7 }}",
        "{% x %}",
        "---",
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1e308",
        "-1e308",
        "1e-320",
        "0.0",
        "18446744073709551615",
        "[]",
        "{}",
        "\"\"",
        "NaN",
        "pass_with_warnings",
        "fail",
        "model/int8\\\\x",
        "..",
        "/",
    ],
};

fn run(bytes: &[u8]) -> Outcome {
    let path = Path::new("fuzz.json");
    let mut report = parse(bytes, path).map_err(|it| refusal(&it))?;
    let gate: Gate = "kl.mean<=0.05".parse().expect("a gate");
    report.gates.push(gate::check(&gate, &report.figures));
    let compared = baseline::compare("fuzz.json", &report.clone(), &report).ok();
    let has_baseline = compared.is_some();
    report.baseline = compared.or(report.baseline);
    report.judge();
    render(&report);
    let sections = [
        report.attribution.is_some(),
        has_baseline,
        report.figures.outputs.is_empty(),
        report.precision.is_empty(),
        report.warnings.is_empty(),
        report.figures.latency.is_empty(),
    ];
    Ok(format!("{sections:?}"))
}

fn render(report: &Report) {
    for emitter in EMITTERS {
        let page = (emitter.emit)(report);
        match emitter.name {
            "html" => markup::check_html(&page),
            "junit" => markup::check_xml(&page),
            "gitlab" | "sarif" => {
                let read: Result<serde_json::Value, _> = serde_json::from_str(&page);
                assert!(read.is_ok(), "{} is no JSON", emitter.name);
            }
            "json" => match parse(page.as_bytes(), Path::new("again.json")) {
                Ok(again) => assert_eq!(&again, report, "JSON changes a report"),
                Err(error) => panic!("a written report is refused: {error}"),
            },
            "github" => {
                let known = ["::error ", "::warning ", "::notice "];
                let ours = |line: &str| known.iter().any(|it| line.starts_with(it));
                assert!(page.lines().all(ours), "a line of its own in github: {page}");
            }
            _ => {
                markup::check_markdown(&page);
            }
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    corpus::files("fuzz/seeds/report")
}
