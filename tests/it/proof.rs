//! `validate`: what it measures, against computing it another way, and what it fails on.

use std::{fs, path::Path};

use crate::common::{outside::run, runtime};
use onnx_protobuf::ModelProto;
use onnxq_ir::tensor::Tensor;
use onnxq_run::{
    data::{self, DataOptions},
    engine::SessionOptions,
};
use protobuf::Message;
use serde_json::Value;
use tempfile::TempDir;

fn fixture(name: &str) -> String {
    format!("{}/fixtures/slm-fixture/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A folder with the fixture quantized by a recipe as `q.onnx`.
fn quantized(model: &str, recipe: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx").to_str().unwrap().to_owned();
    let it = run(&["quantize", &fixture(model), "-r", recipe, "-o", &path]);
    assert_eq!(it.code, 0, "{}", it.error);
    (folder, path)
}

fn validate(model: &str, quantized: &str, more: &[&str]) -> Value {
    let (model, data) = (fixture(model), fixture("eval_ids.npy"));
    let args = ["validate", &model, quantized, "--data", &data, "--json"];
    run(&[&args[..], more].concat()).json()
}

fn number(it: &Value) -> f64 {
    it.as_f64().unwrap_or_else(|| panic!("{it} is no number"))
}

/// Logits of the first samples, one row per token, and the tokens.
fn logits(path: &str, samples: usize) -> (Vec<Vec<f64>>, Vec<i64>) {
    let mut session = runtime().open(Path::new(path), &SessionOptions::default()).unwrap();
    let options = DataOptions { samples: Some(samples), batch: samples, ..DataOptions::default() };
    let data = fixture("eval_ids.npy");
    let mut batches = data::open(Path::new(&data), session.inputs(), &options).unwrap();
    let batch = batches.next().unwrap().unwrap();
    let inputs: Vec<(&str, &Tensor)> = batch.iter().map(|(name, it)| (&**name, it)).collect();
    let output = session.run(&inputs).unwrap().remove(0).1;
    let width = *output.shape.last().unwrap();
    let values = output.to_f32().unwrap();
    let rows = values.chunks(width).map(|it| it.iter().map(|it| f64::from(*it)).collect());
    (rows.collect(), batch["input_ids"].to_i64().unwrap())
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::MIN, f64::max);
    let sum = row.iter().map(|it| (it - max).exp()).sum::<f64>().ln();
    row.iter().map(|it| it - max - sum).collect()
}

fn top(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
}

#[test]
fn figures_are_what_their_definitions_say() {
    let (_folder, path) = quantized("model.onnx", "int4");
    let report = validate("model.onnx", &path, &["--samples", "3", "--no-latency"]);
    let got = &report["outputs"]["logits"];
    let ((a, ids), (b, _)) = (logits(&fixture("model.onnx"), 3), logits(&path, 3));
    let sequence = ids.len() / 3;
    let (mut kl, mut same, mut five, mut nats) = (Vec::new(), 0.0, 0.0, (0.0, 0.0, 0.0));
    for (at, (a, b)) in a.iter().zip(&b).enumerate() {
        let (p, q) = (log_softmax(a), log_softmax(b));
        kl.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
        same += f64::from(u8::from(top(a) == top(b)));
        let before = b.iter().filter(|it| **it > b[top(a)]).count();
        five += f64::from(u8::from(before < 5));
        if (at + 1) % sequence != 0 {
            let next = ids[at + 1] as usize;
            nats = (nats.0 - p[next], nats.1 - q[next], nats.2 + 1.0);
        }
    }
    let count = kl.len() as f64;
    let close = |what: &str, got: &Value, expected: f64| {
        let error = (number(got) - expected).abs() / expected.abs();
        assert!(error < 1e-5, "{what}: {got} instead of {expected}");
    };
    close("kl", &got["kl"]["mean"], kl.iter().sum::<f64>() / count);
    kl.sort_by(f64::total_cmp);
    close("max", &got["kl"]["max"], kl[kl.len() - 1]);
    close("top1", &got["top1"], same / count);
    close("top5", &got["top5"], five / count);
    let perplexity = ((nats.0 / nats.2).exp(), (nats.1 / nats.2).exp());
    close("reference", &got["perplexity"]["reference"], perplexity.0);
    close("difference", &got["perplexity"]["difference"], perplexity.1 - perplexity.0);
    let interval = &got["perplexity"]["ratio_interval"];
    let ratio = number(&got["perplexity"]["ratio"]);
    assert!(number(&interval["low"]) <= ratio && ratio <= number(&interval["high"]), "{interval}");
    let counts = got["kl_histogram"]["counts"].as_array().unwrap();
    assert_eq!(counts.iter().map(number).sum::<f64>(), count);
    let bins = got["by_position"].as_array().unwrap();
    let mean: f64 = bins.iter().map(|it| number(&it["kl"]) * number(&it["tokens"])).sum();
    close("by position", &got["kl"]["mean"], mean / count);
}

#[test]
fn the_worst_tokens_have_their_text() {
    let (_folder, path) = quantized("model.onnx", "int4");
    let tokenizer = fixture("tokenizer.json");
    let more = ["--samples", "2", "--no-latency", "--tokenizer", &tokenizer];
    let report = validate("model.onnx", &path, &more);
    let got = &report["outputs"]["logits"];
    let worst = got["worst_tokens"].as_array().unwrap();
    assert_eq!(worst.len(), 10);
    // The summary is of float32 numbers.
    assert!((number(&worst[0]["kl"]) / number(&got["kl"]["max"]) - 1.0).abs() < 1e-6);
    for it in worst {
        assert!(it["context"].is_string() && it["reference_text"].is_string(), "{it}");
        assert!(number(&it["reference_probability"]) <= 1.0);
    }
}

#[test]
fn decoding_is_compared_step_by_step() {
    let (_folder, path) = quantized("model_with_past.onnx", "int4");
    let report = validate("model_with_past.onnx", &path, &["--samples", "2"]);
    let decode = &report["decode"];
    assert_eq!((&decode["samples"], &decode["prompt"]), (&2.into(), &128.into()), "{decode}");
    assert_eq!((&decode["steps"], decode["kl"].is_object()), (&64.into(), true));
    // The prefill of the same text errs as much; a cache that lost something would err more.
    let (kl, whole) = (&decode["kl"]["mean"], &report["outputs"]["logits"]["kl"]["mean"]);
    assert!(number(kl) > 0.1 * number(whole) && number(kl) < 4.0 * number(whole), "{kl} {whole}");
    assert!(number(&decode["cache_kl"]["reference"]) < 1e-6, "{decode}");
    assert!(decode["by_step"].as_array().unwrap().len() > 1);
    assert!(number(&decode["common_prefix"]["mean"]) >= 0.0);
    let runs = report["latency"].as_array().unwrap();
    let phases: Vec<&str> = runs.iter().map(|it| it["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["prefill", "prefill", "decode"]);
    assert_eq!(runs[2]["input"], "1x1+128");
}

#[test]
fn a_model_equals_itself_in_every_way() {
    let model = fixture("model_with_past.onnx");
    let report = validate("model_with_past.onnx", &model, &["--samples", "2", "--no-latency"]);
    assert_eq!(report["verdict"], "not_judged");
    assert_eq!(report["outputs"]["logits"]["exact"], true);
    assert_eq!(report["decode"]["kl"]["max"], 0.0);
    assert_eq!(report["decode"]["common_prefix"]["min"], 64.0);
}

#[test]
fn the_weights_are_a_part_of_the_deployed_error() {
    let (_folder, path) = quantized("model.onnx", "avx512_vnni");
    let gates = ["--gate", "weights_only_loss<=1", "--gate", "unoptimized_loss<=1"];
    let more = [&["--samples", "4", "--no-latency"], &gates[..]].concat();
    let report = validate("model.onnx", &path, &more);
    let it = &report["isolation"];
    let [weights, deployed, plain] =
        ["weights_only", "deployed", "unoptimized"].map(|name| number(&it[name]));
    assert!(weights > 0.0 && weights < deployed, "{it}");
    // Fusions change the order of additions, not what is computed.
    assert!((plain / deployed - 1.0).abs() < 0.2, "{it}");
    assert_eq!(it["samples"], 4);
}

#[test]
fn a_baseline_fails_on_what_got_worse() {
    let (folder, good) = quantized("model.onnx", "avx512_vnni");
    let (_other, bad) = quantized("model.onnx", "int4");
    let old = folder.path().join("old.json").to_str().unwrap().to_owned();
    let common = ["--samples", "3", "--no-latency"];
    let report = validate("model.onnx", &good, &common);
    fs::write(&old, report.to_string()).unwrap();
    let (model, data) = (fixture("model.onnx"), fixture("eval_ids.npy"));
    let against = |candidate: &str, samples: &str| {
        let args = ["validate", &model, candidate, "--data", &data, "--baseline", &old];
        run(&[&args[..], &["--samples", samples, "--no-latency"]].concat())
    };
    let same = against(&good, "3");
    assert_eq!(same.code, 0, "{}", same.error);
    assert!(same.out.contains("figures got worse\n"), "{}", same.out);
    let worse = against(&bad, "3");
    assert_eq!(worse.code, 1);
    assert!(worse.out.contains("logits:kl.mean"), "{}", worse.out);
    let other = against(&good, "2");
    assert_eq!(other.code, 2);
    assert!(other.error.contains("error[E618]") && other.error.contains("number of samples"));
    fs::write(&old, "{}").unwrap();
    assert!(against(&good, "3").error.contains("error[E619]"));
}

/// As `</script>…` and with everything that moves a cursor or forges a line of a log.
const HOSTILE: &str = "</script><script>alert(1)</script>\x1b]8;;http://evil\x07\x1b[2J\u{202e}gnp.exe\n::error::pwn|`x`";

/// The fixture with that in the names of all nodes and of the output.
fn hostile(folder: &Path) -> String {
    let mut model =
        ModelProto::parse_from_bytes(&fs::read(fixture("model.onnx")).unwrap()).unwrap();
    let (graph, new) = (model.graph.mut_or_insert_default(), format!("logits{HOSTILE}"));
    let old = graph.output[0].name.clone();
    graph.output[0].name.clone_from(&new);
    for (at, node) in graph.node.iter_mut().enumerate() {
        node.name = format!("{HOSTILE}{at}");
        let names = node.input.iter_mut().chain(&mut node.output);
        names.filter(|it| **it == old).for_each(|it| it.clone_from(&new));
    }
    let path = folder.join("hostile.onnx");
    fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn hostile_names_stay_names_from_the_model_to_every_output() {
    let folder = tempfile::tempdir().unwrap();
    let model = hostile(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (quantized, report, data) = (at("q.onnx"), at("report"), fixture("eval_ids.npy"));
    let it = run(&["quantize", &model, "-r", "int4", "-o", &quantized]);
    assert_eq!(it.code, 0, "{}", it.error);
    let mut printed = it.out + &it.error;
    let common = ["validate", &model, &quantized, "--data", &data, "--samples", "1", "--layers"];
    let gate = format!("logits{HOSTILE}:kl.mean<=1e-9");
    let gitlab = format!("gitlab={}", at("report/gitlab.json"));
    let more = ["--gate", &gate, "--report", &report, "--emit", &gitlab];
    let it = run(&[&common[..], &more].concat());
    assert_eq!(it.code, 1, "{}", it.error);
    printed += &(it.out + &it.error);
    let it = run(&["report", &at("report/report.json"), "--format", "github"]);
    assert_eq!(it.code, 0, "{}", it.error);
    // Only we begin a line like that, and only here.
    let commands = it.out.lines().filter(|it| it.starts_with("::"));
    assert!(commands.clone().count() > 0);
    assert!(commands.clone().all(|it| !it.starts_with("::error::pwn")), "{}", it.out);
    printed += &(it.out + &it.error);
    for file in fs::read_dir(&report).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // JSON escapes what ends a string; whoever prints its names escapes them again.
        if path.extension().is_some_and(|it| it == "json" || it == "sarif") {
            serde_json::from_str::<Value>(&text).unwrap();
        } else {
            assert!(!text.contains("<script>alert"), "{}", path.display());
            check_bytes(&path.display().to_string(), &text);
            assert!(text.contains("alert"), "{} does not name it at all", path.display());
        }
    }
    assert!(printed.contains("alert(1)"), "{printed}");
    check_bytes("the terminal", &printed);
    assert_eq!(printed.lines().filter(|it| it.starts_with("::error::pwn")).count(), 0);
}

fn check_bytes(place: &str, text: &str) {
    let bad = |it: &char| it.is_control() && *it != '\n' || ('\u{202a}'..='\u{202e}').contains(it);
    assert_eq!(text.chars().find(bad), None, "{place}");
}
