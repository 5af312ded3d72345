//! A snippet for a model card on Hugging Face: the head in YAML, and a table.

use std::collections::BTreeSet;

use super::{Emitter, markdown};
use crate::Report;
use onnxq_ir::{human::grouped, untrusted::escape};

pub(super) const CARD: Emitter = Emitter {
    name: "card",
    file: "model-card.md",
    endings: &[],
    about: "The head and a table for a model card on Hugging Face",
    common: true,
    printed: true,
    emit,
};

pub(super) fn emit(report: &Report) -> String {
    let mut out = "---\n".to_owned();
    out += &match base_model(&report.models.reference.path) {
        Some(name) => format!("base_model: {}\n", quoted(&name)),
        None => "# base_model: ORGANIZATION/NAME of the original\n".to_owned(),
    };
    out += "base_model_relation: quantized\nquantized_by: onnxq\ntags:\n";
    tags(report).iter().for_each(|it| out += &format!("- {}\n", quoted(it)));
    out + "---\n\n" + &quantized(report) + &markdown::figures(report) + &measured(report)
}

/// The cache of the Hub says in its folders whose model it is:
/// `models--openai--gpt2/snapshots/…/model.onnx`.
fn base_model(path: &str) -> Option<String> {
    let folder = path.split(['/', '\\']).find_map(|it| it.strip_prefix("models--"))?;
    let (owner, name) = folder.split_once("--")?;
    let is_plain = |it: &str| {
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.".contains(&it);
        !it.is_empty() && it.len() <= 96 && it.bytes().all(plain)
    };
    (is_plain(owner) && is_plain(name)).then(|| format!("{owner}/{name}"))
}

fn tags(report: &Report) -> Vec<String> {
    let stored: BTreeSet<&str> = report.precision.iter().map(|it| &*it.precision).collect();
    let known = ["float16", "int8", "int4", "int2"];
    let known = known.into_iter().filter(|it| stored.contains(it));
    let mut tags: Vec<String> = ["onnx", "onnxruntime", "quantized"].map(str::to_owned).to_vec();
    tags.extend(known.map(str::to_owned));
    tags
}

/// YAML reads JSON's strings.
fn quoted(text: &str) -> String {
    serde_json::to_string(&escape(text)).expect("a string is plain JSON")
}

fn quantized(report: &Report) -> String {
    let version = markdown::text(&report.environment.onnxq);
    let recipe = report
        .provenance
        .recipe
        .as_ref()
        .map_or(String::new(), |it| format!(" with the recipe {}", markdown::text(&it.name)));
    let by = format!("onnxq {version}").trim_end().to_owned();
    format!(
        "## Quantization\n\nMade by {by}{recipe}. Compared with the original in ONNX Runtime:\n\n"
    )
}

/// On what, and on which machine.
fn measured(report: &Report) -> String {
    let mut facts = Vec::new();
    if report.figures.samples > 0 {
        facts.push(format!("{} samples", grouped(report.figures.samples as u64)));
    }
    let it = &report.environment;
    facts.extend([&it.cpu].into_iter().filter(|it| !it.is_empty()).map(|it| markdown::text(it)));
    if !it.onnxruntime.is_empty() {
        facts.push(format!("ONNX Runtime {}", markdown::text(&it.onnxruntime)));
    }
    if it.threads > 0 {
        facts.push(format!("threads: {}", it.threads));
    }
    if facts.is_empty() { String::new() } else { format!("Measured on: {}.\n", facts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_the_hub_names_the_base_model() {
        let path = "/x/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/0/onnx/model.onnx";
        assert_eq!(base_model(path).as_deref(), Some("HuggingFaceTB/SmolLM2-135M"));
        for path in ["model.onnx", "models--x/m", "models--a--b: c\n/m", "models----b/m"] {
            assert_eq!(base_model(path), None, "{path}");
        }
    }
}
