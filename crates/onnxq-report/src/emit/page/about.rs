//! What the report was made with and from, and what to publish of it.

use super::{super::card, Cell, Limits, Section, Table, visible};
use crate::{
    Report,
    document::{FileFacts, Samples},
};

pub(super) fn data(report: &Report, limits: Limits) -> Option<Section> {
    let provenance = &report.provenance;
    let calibration = provenance.calibration.as_ref().map(|it| ("calibration", it));
    let sets = [("evaluation", &provenance.evaluation)].into_iter().chain(calibration);
    let sets: Vec<(&str, &Samples)> = sets.filter(|it| *it.1 != Samples::default()).collect();
    let table = Table::new("data", "Samples")
        .words(&["for", "path"])
        .numbers(&["samples", "files"])
        .words(&["SHA-256"])
        .fill(sets.iter(), limits, |(purpose, it)| {
            vec![
                Cell::name(purpose),
                Cell::maybe(it.path.as_deref()),
                it.samples.map_or_else(Cell::none, Cell::count),
                Cell::count(it.files.len()),
                Cell::name(&it.sha256),
            ]
        });
    let overlap = provenance.overlap.as_ref().map(|it| {
        format!(
            "{} of {} evaluation samples that could be looked up were calibrated on.",
            it.shared, it.checked
        )
    });
    Section::new("data", "Data").table(table).note(overlap).filled()
}

pub(super) fn environment(report: &Report, _: Limits) -> Option<Section> {
    let it = &report.environment;
    let having = |wanted: bool| -> String {
        let names = it.cpu_features.iter().filter(|it| *it.1 == wanted).map(|it| &**it.0);
        names.collect::<Vec<&str>>().join(", ")
    };
    let threads = if it.threads == 0 { String::new() } else { it.threads.to_string() };
    let facts = [
        ("onnxq", it.onnxq.clone()),
        ("its commit", it.onnxq_commit.clone().unwrap_or_default()),
        ("ONNX Runtime", it.onnxruntime.clone()),
        ("its library", it.onnxruntime_path.clone()),
        ("its SHA-256", it.onnxruntime_sha256.clone().unwrap_or_default()),
        ("CPU", it.cpu.clone()),
        ("instruction sets", having(true)),
        ("not on this CPU", having(false)),
        ("threads of a session", threads),
        ("int8 sums", it.int8_sums.clone().unwrap_or_default()),
        ("system", format!("{} {}", it.os, it.arch).trim().to_owned()),
    ];
    let mut table =
        Table::new("environment", "The machine and the programs").words(&["what", "is"]);
    for (label, text) in facts.iter().filter(|it| !it.1.is_empty()) {
        table.row(vec![Cell::name(label), Cell::sentence(text)]);
    }
    Section::new("environment", "Environment").table(table).filled()
}

pub(super) fn provenance(report: &Report, limits: Limits) -> Option<Section> {
    let provenance = &report.provenance;
    let mut section = Section::new("provenance", "Provenance").table(files(report, limits));
    section = section.table(metadata(report, limits));
    if !provenance.command.is_empty() {
        let command: Vec<String> = provenance.command.iter().map(|it| quoted(it)).collect();
        section = section.block("command", "Command", &command.join(" "), limits);
    }
    if let Some(recipe) = &provenance.recipe {
        let title = format!("Recipe {}, SHA-256 {}", recipe.name, recipe.sha256);
        match &recipe.yaml {
            Some(yaml) => section = section.block("recipe", &title, yaml, limits),
            None => section = section.note(Some(title)),
        }
    }
    section.filled()
}

fn files(report: &Report, limits: Limits) -> Table {
    let (models, provenance) = (&report.models, &report.provenance);
    let calibration = provenance.calibration.iter().flat_map(|it| &it.files);
    let lists: Vec<(&str, &FileFacts)> = (models.reference.files.iter().map(|it| ("original", it)))
        .chain(models.candidate.files.iter().map(|it| ("quantized", it)))
        .chain(provenance.evaluation.files.iter().map(|it| ("evaluation", it)))
        .chain(calibration.map(|it| ("calibration", it)))
        .collect();
    Table::new("file", "Every file that went in or came out")
        .words(&["of", "file"])
        .numbers(&["bytes"])
        .words(&["SHA-256"])
        .fill(lists.into_iter(), limits, |(of, it)| {
            let (file, digest) = (Cell::name(&it.name), Cell::name(&it.sha256));
            vec![Cell::name(of), file, Cell::bytes(it.bytes), digest]
        })
}

/// The text of the recipe follows by itself.
fn metadata(report: &Report, limits: Limits) -> Table {
    let recipe = report.provenance.recipe.as_ref().and_then(|it| it.yaml.as_ref());
    let entries = report.models.candidate.metadata.iter();
    let entries: Vec<_> = entries.filter(|it| Some(it.1) != recipe).collect();
    Table::new("metadata", "What the quantized model says of itself").words(&["key", "value"]).fill(
        entries.into_iter(),
        limits,
        |it| vec![Cell::name(it.0), Cell::sentence(&visible(it.1))],
    )
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&it);
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

pub(super) fn card(report: &Report, limits: Limits) -> Option<Section> {
    Section::new("card", "For the model card")
        .intro("The head and a table for README.md on Hugging Face.")
        .block("card-text", "Model card", &card::emit(report), limits)
        .filled()
}
