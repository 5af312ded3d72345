//! The report in every format, with ordinary names and with hostile ones; and `onnxq report`.

use std::{collections::BTreeMap, fs};

use assert_cmd::Command;
use onnxq_report::{
    Report,
    document::{read, schema},
    emit::{EMITTERS, MAX_PAGE_BYTES, emitter},
    pictures::{MAX_OUTPUTS, Picture},
};
use quick_xml::{Reader, events::Event};
use serde_json::Value;

use crate::common::reports::{HOSTILE, full, hostile, minimal, named};

fn emit(format: &str, report: &Report) -> String {
    (emitter(format).unwrap().emit)(report)
}

/// Characters that move cursors, hide text or change its direction; new lines are checked apart.
fn assert_visible(text: &str) {
    for it in text.chars() {
        let hidden = it.is_control() && it != '\n' || matches!(it, '\u{202e}' | '\u{200b}');
        assert!(!hidden, "{it:?} in\n{text}");
    }
}

#[test]
fn every_format_of_every_report() {
    for report in [minimal(), full(), hostile()] {
        for it in EMITTERS {
            let text = (it.emit)(&report);
            assert_eq!(text, (it.emit)(&report), "{}", it.name);
            // JSON escapes them, and a reader of JSON wants the names as they are.
            if !["gitlab", "json", "sarif"].contains(&it.name) {
                assert_visible(&text);
            }
            let quiet = it.name == "github" && report == minimal();
            assert!(quiet || text.ends_with(['\n', '>']), "{}", it.name);
        }
    }
}

#[test]
fn json_leads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for report in [minimal(), full(), hostile()] {
        fs::write(&path, emit("json", &report)).unwrap();
        assert!(read(&path).unwrap() == report);
    }
}

/// The attributes of each element, by the element's name; panics on what is not well formed.
fn elements(xml: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut reader = Reader::from_str(xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(it) | Event::Empty(it) => {
                let attributes = it.attributes().map(|it| {
                    let it = it.unwrap();
                    (it.key.as_ref().to_owned(), it.value.to_string())
                });
                found.push((it.name().as_ref().to_owned(), attributes.collect()));
            }
            Event::Eof => return found,
            _ => {}
        }
    }
}

#[test]
fn junit_has_a_case_for_each_gate_and_each_figure_of_a_baseline() {
    for report in [full(), hostile()] {
        let xml = emit("junit", &report);
        let elements = elements(&xml);
        let count = |name: &str| elements.iter().filter(|it| it.0 == name).count();
        let names = ["testsuites", "testsuite", "testcase", "failure", "properties", "property"];
        assert_eq!(names.map(count)[..5], [1, 2, 7, 3, 2]);
        assert!(elements.iter().all(|it| names.contains(&&*it.0)), "{elements:?}");
        assert_eq!((&*elements[0].1["tests"], &*elements[0].1["failures"]), ("7", "3"));
    }
    let xml = emit("junit", &full());
    let missed =
        "kl.mean&lt;=0.03 failed: measured 0.04123, 0.01123 beyond the limit; 0.0413 would pass";
    assert!(xml.contains(missed), "{xml}");
    assert!(xml.contains("measured: 0.041234\nlimit: 0.03\nmargin: -0.011234"), "{xml}");
    // Nothing was judged, so nothing passed.
    let empty = elements(&emit("junit", &minimal()));
    assert_eq!(empty.iter().filter(|element| element.0 == "skipped").count(), 1);
}

#[test]
fn sarif_points_at_nodes_and_outputs() {
    let log: Value = serde_json::from_str(&emit("sarif", &full())).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let results = run["results"].as_array().unwrap();
    // Two gates, a regression, two warnings, two suggestions.
    let levels: Vec<&str> = results.iter().map(|it| it["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["error", "error", "error", "warning", "warning", "note", "note"]);
    assert_eq!(results[0]["ruleId"], "kl");
    let place = &results[0]["locations"][0];
    assert_eq!(place["physicalLocation"]["artifactLocation"]["uri"], "model_q4.onnx");
    assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], "logits");
    let node = &results[5]["locations"][0]["logicalLocations"][0]["name"];
    assert_eq!(node, "/model/layers.3/down_proj/MatMul");
    for it in results {
        let rule = &run["tool"]["driver"]["rules"][it["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], it["ruleId"]);
    }
    let fingerprints: std::collections::BTreeSet<String> =
        results.iter().map(|it| it["partialFingerprints"].to_string()).collect();
    assert_eq!(fingerprints.len(), results.len());
}

#[test]
fn sarif_and_gitlab_hold_hostile_names_as_data() {
    let log: Value = serde_json::from_str(&emit("sarif", &hostile())).unwrap();
    for it in log["runs"][0]["results"].as_array().unwrap() {
        let text = it["message"]["text"].as_str().unwrap();
        assert_visible(text);
        assert!(!text.contains("[t]("), "a link: {text}");
        let uri = &it["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~%".contains(&it);
        assert!(uri.as_str().unwrap().bytes().all(plain), "{uri}");
        let rule = it["ruleId"].as_str().unwrap();
        assert!(rule.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'), "{rule}");
    }
    let list: Value = serde_json::from_str(&emit("gitlab", &hostile())).unwrap();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 7);
    list.iter().for_each(|it| assert_visible(it["description"].as_str().unwrap()));
    assert_eq!(list[0]["severity"], "critical");
    assert_eq!(list[0]["location"]["lines"]["begin"], 1);
}

#[test]
fn annotations_are_ours_line_by_line() {
    for report in [full(), hostile()] {
        let text = emit("github", &report);
        assert_eq!(text.lines().count(), 7, "{text}");
        for line in text.lines() {
            let levels = ["::error title=onnxq", "::warning title=onnxq", "::notice title=onnxq"];
            assert!(levels.iter().any(|it| line.starts_with(it)), "{line}");
            // The properties end at the first `::` after them, and no name moves that.
            let (properties, _) = line[2..].split_once("::").unwrap();
            assert!(!properties.contains([':', ',', '\r']), "{properties}");
            assert!(!line.contains("##["), "{line}");
        }
    }
    let many = named(&|it| it.to_owned(), 3);
    let mut many = many;
    many.warnings = vec![many.warnings[0].clone(); 40];
    let text = emit("github", &many);
    assert_eq!(text.lines().count(), 10);
    assert!(text.ends_with("::… and 36 more, see the summary\n"), "{text}");
}

#[test]
fn markdown_is_tables_and_text() {
    let text = emit("markdown", &full());
    for part in [
        "## ❌ FAIL: model\\_q4.onnx",
        "2 of 4 gates missed: kl.mean 0.04123, needs &lt;=0.03",
        "| **FAIL** | kl.mean&lt;=0.03 | logits | 0.04123 | 0.03 | -0.01123 | 0.0413 |",
        "| Size | 26.2 MB | 5.2 MB | × 0.2000 |",
        "▼ worse",
        "keep in",
        "On the page: maps0: sample 3 (receipt.png), channel 1 of 4, which differs most; \
         640 × 1,024 (height × width), each pixel the mean of up to 8 × 8; \
         2 elements left out: NaN or Inf\n",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    let text = emit("markdown", &hostile());
    for part in ["<script", "<img", "[t](", "http://", "\n::error", "`x`", "\n- y"] {
        assert!(!text.contains(part), "`{part}` in\n{text}");
    }
    // Rows keep their cells.
    for table in text.split("\n\n").filter(|it| it.starts_with("| ")) {
        let cells = |line: &str| line.replace(r"\\", "").replace(r"\|", "").matches('|').count();
        let counts: Vec<usize> = table.lines().map(cells).collect();
        assert!(counts.iter().all(|it| *it == counts[0]), "{table}");
    }
}

#[test]
fn the_card_has_a_head_that_yaml_reads() {
    let head = |card: &str| -> BTreeMap<String, Value> {
        let rest = card.strip_prefix("---\n").unwrap();
        let (yaml, _) = rest.split_once("\n---\n").unwrap();
        serde_yaml::from_str(yaml).unwrap()
    };
    let card = emit("card", &full());
    let yaml = head(&card);
    assert_eq!(yaml["base_model_relation"], "quantized");
    assert_eq!(yaml["base_model"], "acme/slm-dev");
    let tags = serde_json::json!(["onnx", "onnxruntime", "quantized", "int8", "int4"]);
    assert_eq!(yaml["tags"], tags);
    assert!(card.contains("| Size | 26.2 MB | 5.2 MB | × 0.2000 |"), "{card}");
    let names = ["base_model_relation", "quantized_by", "tags"];
    for report in [minimal(), hostile()] {
        let yaml = head(&emit("card", &report));
        let keys: Vec<&str> =
            yaml.keys().map(|it| &**it).filter(|it| *it != "base_model").collect();
        assert_eq!(keys, names);
    }
    assert!(!emit("card", &hostile()).contains("<script"));
}

#[test]
fn the_page_has_what_the_report_has() {
    let page = emit("html", &full());
    for id in [
        "gates",
        "warnings",
        "baseline",
        "outputs",
        "pictures",
        "worst",
        "decode",
        "isolation",
        "layers",
        "precision",
        "kept",
        "operators",
        "size",
        "performance",
        "data",
        "environment",
        "provenance",
        "card",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    // The KL histogram, by position, by step, layers, precision, size, and two latencies; then the
    // weight and the input of each layer that has a part of its own.
    assert_eq!(page.matches("<svg ").count(), 8 + 2 * page.matches("<details ").count());
    let page = emit("html", &minimal());
    assert!(
        page.contains("NOT JUDGED") && !page.contains("id=\"gates\"") && !page.contains("<svg ")
    );
}

#[test]
fn a_hostile_page_has_one_script_and_it_is_ours() {
    let page = emit("html", &hostile());
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1));
    for part in ["javascript:alert(3)\"", "\n::error", " onerror=alert(2)>"] {
        assert!(!page.contains(part), "{part}");
    }
    // The pictures are ours, too, and no name is a source.
    let ours = page.matches("<img src=\"data:image/png;base64,").count();
    assert_eq!((page.matches("<img").count(), ours), (4, 4));
    assert!(!page.contains(" style=") && !page.contains(" onclick="));
    // Template marks in a name are text.
    assert!(page.contains("{{ 7*7 }}") && !page.contains("#49"));
}

/// A report that someone has edited: codes that do not fit their size, markup for codes.
#[test]
fn pictures_of_a_foreign_report_are_read_with_care() {
    type Edit = fn(&mut Picture);
    let edits: [Edit; 5] = [
        |it| it.codes = "\"><script>alert(1)</script>".into(),
        |it| it.codes.truncate(7),
        |it| (it.height, it.width) = (usize::MAX, usize::MAX),
        |it| it.channels = 2,
        |it| (it.low, it.high) = (f64::MAX, f64::MIN),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let mut report = full();
        let output = report.figures.outputs.get_mut("maps0").unwrap();
        edit(&mut output.pictures.as_mut().unwrap().difference);
        output.pictures.as_mut().unwrap().height = usize::MAX;
        let page = emit("html", &report);
        // A scale is only shown; of the others, no picture.
        let left = if at == 4 { 4 } else { 0 };
        assert_eq!((page.matches("<img").count(), page.matches("<script").count()), (left, 1));
        assert_eq!(page.contains("maps0: report.json holds no pictures that fit it"), at < 4);
    }
    let mut report = full();
    let output = report.figures.outputs["maps0"].clone();
    for it in 0..50 {
        report.figures.outputs.insert(format!("more{it}"), output.clone());
    }
    assert_eq!(emit("html", &report).matches("<img").count(), 4 * MAX_OUTPUTS);
}

#[test]
fn a_page_of_a_hundred_thousand_nodes_fits() {
    let page = emit("html", &named(&|it| it.to_owned(), 100_000));
    assert!(page.len() <= MAX_PAGE_BYTES, "{} bytes", page.len());
    assert!(page.contains("… and 99,600 more"));
    let long = format!("{}{HOSTILE}", "\u{202e}<\"".repeat(500));
    let mut wide = named(&|_| long.clone(), 2000);
    let output = wide.figures.outputs.values().next().unwrap().clone();
    for it in 0..3000 {
        wide.figures.outputs.insert(format!("{it}{long}"), output.clone());
    }
    let page = emit("html", &wide);
    assert!(page.len() <= MAX_PAGE_BYTES, "{} bytes", page.len());
}

/// `onnxq` with these arguments: stdout, stderr, exit code.
fn onnxq(args: &[&str]) -> (String, String, i32) {
    let output = Command::cargo_bin("onnxq").unwrap().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

#[test]
fn report_renders_an_old_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let old = path("old.json");
    fs::write(&old, emit("json", &full())).unwrap();
    for it in EMITTERS {
        let (out, error, code) = onnxq(&["report", &old, "--format", it.name]);
        assert_eq!((code, out == (it.emit)(&full())), (0, true), "{}: {error}", it.name);
    }
    let (out, _, code) = onnxq(&["report", &old]);
    assert!(code == 0 && out.starts_with("<!DOCTYPE html>"));
    let (out, _, code) = onnxq(&["report", "--schema"]);
    assert_eq!((code, out), (0, schema()));

    let page = path("page.html");
    assert_eq!(onnxq(&["report", &old, "-o", &page]), (String::new(), String::new(), 0));
    assert_eq!(fs::read_to_string(&page).unwrap(), emit("html", &full()));
    let all = path("all/");
    assert_eq!(onnxq(&["report", &old, "-o", &all]).2, 0);
    let mut names: Vec<_> = fs::read_dir(&all).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    let expected =
        ["index.html", "junit.xml", "model-card.md", "report.json", "report.md", "report.sarif"];
    assert_eq!(names, expected);
}

#[test]
fn what_is_no_report_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json");
    let file = path.to_str().unwrap();
    for (text, word) in [
        ("", "no report"),
        ("[1, 2", "no report"),
        ("{\"schema\": 3}", "no report"),
        ("{}", "of the format `none`"),
        ("{\"schema\": \"onnxq.report/2\"}", "update onnxq"),
        ("{\"schema\": \"\\u001b[2J\"}", "\\u{1b}[2J"),
        ("{\"schema\": \"onnxq.report/1\", \"gates\": 3}", "no report"),
    ] {
        fs::write(&path, text).unwrap();
        let (out, error, code) = onnxq(&["report", file]);
        assert_eq!((&*out, code), ("", 3), "{text}: {error}");
        assert!(error.contains("E619") && error.contains(word), "{text}: {error}");
    }
    assert_eq!(onnxq(&["report", "/none/such.json"]).2, 2);
    assert_eq!(onnxq(&["report"]).2, 2);
}

#[test]
fn a_model_is_never_overwritten_by_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (old, model) = (path("old.json"), path("model.html"));
    let mut report = full();
    report.models.candidate.path = model.clone();
    fs::write(&old, emit("json", &report)).unwrap();
    fs::write(&model, "a model").unwrap();
    let (_, error, code) = onnxq(&["report", &old, "-o", &model]);
    assert!(code == 2 && error.contains("E904"), "{error}");
    assert_eq!(fs::read_to_string(&model).unwrap(), "a model");
    let (_, error, code) = onnxq(&["report", &old, "-o", &path("x.onnx")]);
    assert!(code == 2 && error.contains("E711"), "{error}");
    let (_, error, code) = onnxq(&["report", &old, "-o", &path("none/x.html")]);
    assert!(code == 5 && error.contains("E901"), "{error}");
}
