//! Whether it may ship: gates, warnings, and what got worse since a baseline.

use super::{Cell, Limits, Section, Table, Tone, name};
use crate::{BaselineRow, GateResult, Report};

pub(super) fn gates(report: &Report, limits: Limits) -> Option<Section> {
    let table = Table::new("gate", "Each limit, what was measured, and what would just pass")
        .words(&["verdict", "gate", "decided by"])
        .numbers(&["measured", "limit", "margin", "tightest limit that passes"])
        .words(&["why"]);
    let mut list: Vec<&GateResult> = report.gates.iter().collect();
    list.sort_by_key(|it| it.pass);
    let table = table.fill(list.into_iter(), limits, |it| {
        vec![
            Cell::verdict(it.pass),
            Cell::name(&it.gate),
            Cell::maybe(it.output.as_deref()),
            Cell::number(it.measured),
            Cell::exactly(Some(it.limit)),
            Cell::number(it.margin),
            Cell::exactly(it.passing_limit),
            Cell::sentence(it.reason.as_deref().unwrap_or_default()),
        ]
    });
    Section::new("gates", "Gates").brief().table(table.without_empty_last()).filled()
}

pub(super) fn warnings(report: &Report, limits: Limits) -> Option<Section> {
    let table = Table::new("warning", "What to know before trusting a figure")
        .words(&["code", "at", "what"])
        .fill(report.warnings.iter(), limits, |it| {
            let code = Cell::name(&it.code).toned(Tone::Warn);
            vec![code, Cell::maybe(it.at.as_deref()), Cell::sentence(&it.message)]
        });
    Section::new("warnings", "Warnings").brief().table(table).filled()
}

pub(super) fn baseline(report: &Report, limits: Limits) -> Option<Section> {
    let baseline = report.baseline.as_ref()?;
    let mut list: Vec<&BaselineRow> = baseline.rows.iter().collect();
    list.sort_by_key(|it| it.pass);
    let table = Table::new("then", "Each figure then and now")
        .words(&["verdict", "figure"])
        .numbers(&["then", "now", "change", "limit"])
        .words(&["direction"])
        .fill(list.into_iter(), limits, |it| {
            vec![
                Cell::verdict(it.pass),
                Cell::name(&it.figure),
                Cell::number(it.then),
                Cell::number(it.now),
                Cell::number(it.then.zip(it.now).map(|(then, now)| now - then)),
                Cell::number(Some(it.limit)),
                direction(it),
            ]
        });
    let intro = format!(
        "Against {}, made by onnxq {}; its model has SHA-256 {}.",
        name(&baseline.path),
        name(&baseline.onnxq),
        name(&baseline.candidate_sha256),
    );
    Section::new("baseline", "Since the baseline").brief().intro(intro).table(table).filled()
}

fn direction(it: &BaselineRow) -> Cell {
    let same = it.then == it.now;
    let (text, tone) = match (same, it.better) {
        (true, _) => ("= same", Tone::Plain),
        (false, true) => ("▲ better", Tone::Good),
        (false, false) => ("▼ worse", if it.pass { Tone::Warn } else { Tone::Bad }),
    };
    Cell::name(text).toned(tone)
}
