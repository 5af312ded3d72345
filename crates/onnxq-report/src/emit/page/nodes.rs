//! What the candidate's nodes are: precision, what stays in float, operators, bytes.

use std::collections::BTreeSet;

use super::{
    super::{
        number::{count, plural},
        plot,
    },
    Cell, Limits, Section, Table, Tone,
};
use crate::{
    Report,
    document::{Kept, ModelFacts, PrecisionRow},
    summary::finite,
};
use onnxq_ir::human::bytes;

pub(super) fn precision(report: &Report, limits: Limits) -> Option<Section> {
    let differing = report.precision.iter().filter(|it| it.differs.is_some()).count();
    let mut list: Vec<(usize, &PrecisionRow)> = report.precision.iter().enumerate().collect();
    // What runs in another way than it says is what one looks for.
    list.sort_by_key(|it| it.1.differs.is_none());
    let table = Table::new("node", "Nodes with weights")
        .numbers(&["order"])
        .words(&["node", "operator", "stored as", "computes in"])
        .numbers(&["bytes"])
        .words(&["declared", "executed", "differs"])
        .fill(list.into_iter(), limits, |(at, it)| row(at, it));
    let all = report.precision.len();
    let note = |count: usize, what: &str| {
        (count > 0).then(|| format!("{what}: {count} of {}.", plural(all, "node")))
    };
    let is_stored = |it: &&PrecisionRow| {
        it.computes.as_deref() == Some("float") && !it.precision.contains("float")
    };
    let stored = report.precision.iter().filter(is_stored).count();
    Section::new("precision", "Precision map")
        .plot(
            "Every node with a weight, in the order of execution. The colour says what it computes \
             in; where its weight is stored as something else, that is the colour of the stripes.",
            plot::precision(&report.precision),
        )
        .note(note(differing, "Not run as declared, or slow"))
        .note(note(stored, "Weights stored in few bits, computed in float"))
        .table(table.without_empty_last())
        .filled()
}

fn row(at: usize, it: &PrecisionRow) -> Vec<Cell> {
    let differs = Cell::sentence(it.differs.as_deref().unwrap_or_default());
    vec![
        Cell::count(at + 1),
        Cell::node(&it.node),
        Cell::operator(&it.op),
        Cell::name(&it.precision).patched(plot::precision_class(&it.precision)),
        it.computes
            .as_deref()
            .map_or_else(Cell::none, |it| Cell::name(it).patched(plot::precision_class(it))),
        Cell::bytes(it.bytes),
        Cell::maybe(it.declared.as_deref()),
        Cell::maybe(it.executed.as_deref()),
        differs.toned(Tone::Warn),
    ]
}

pub(super) fn kept(report: &Report, limits: Limits) -> Option<Section> {
    let mut list: Vec<&Kept> = report.kept.iter().collect();
    list.sort_by_key(|it| std::cmp::Reverse(it.bytes));
    let table = Table::new("kept", "Nodes that stay in float, by reason")
        .words(&["reason", "operator"])
        .numbers(&["nodes", "bytes"])
        .words(&["which"])
        .fill(list.into_iter(), limits, |it| {
            vec![
                Cell::sentence(&it.reason),
                Cell::operator(&it.op),
                Cell::count(it.count()),
                Cell::bytes(it.bytes),
                Cell::sentence(&some_of(&it.nodes)),
            ]
        });
    Section::new("kept", "Not quantized, and why").brief().table(table).filled()
}

/// The first few, and how many there are.
fn some_of(nodes: &[String]) -> String {
    const MAX: usize = 3;
    let mut shown: Vec<String> = nodes.iter().take(MAX).map(|it| super::name(it)).collect();
    if nodes.len() > MAX {
        shown.push(format!("… and {} more", nodes.len() - MAX));
    }
    shown.join(", ")
}

pub(super) fn operators(report: &Report, limits: Limits) -> Option<Section> {
    let (before, after) = (&report.models.reference.ops, &report.models.candidate.ops);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of =
        |ops: &std::collections::BTreeMap<String, usize>, name| ops.get(name).map_or(0, |it| *it);
    let mut rows: Vec<(&String, usize, usize)> =
        names.into_iter().map(|it| (it, of(before, it), of(after, it))).collect();
    rows.sort_by_key(|(_, before, after)| std::cmp::Reverse(before.abs_diff(*after)));
    let table = Table::new("operator", "How often each operator occurs, subgraphs included")
        .words(&["operator"])
        .numbers(&["original", "quantized", "change"])
        .fill(rows.into_iter(), limits, |(name, before, after)| {
            let change = after as f64 - before as f64;
            let change = Cell::shown(Some(change), |it| match it {
                0.0 => "=".to_owned(),
                it => format!("{it:+}"),
            });
            vec![Cell::name(name), Cell::count(before), Cell::count(after), change]
        });
    Section::new("operators", "Operators").table(table).filled()
}

pub(super) fn weights(report: &Report, limits: Limits) -> Option<Section> {
    let models = &report.models;
    let sides = [("original", &models.reference), ("quantized", &models.candidate)];
    let rows: Vec<_> =
        sides.iter().flat_map(|(side, it)| it.weights.iter().map(move |it| (side, it))).collect();
    let table = Table::new("size", "What the bytes of the weights hold")
        .words(&["model", "kind"])
        .numbers(&["tensors", "bytes"])
        .fill(rows.into_iter(), limits, |(side, it)| {
            let kind = Cell::name(&it.kind).patched(plot::precision_class(&it.kind));
            vec![Cell::name(side), kind, Cell::count(it.tensors), Cell::bytes(it.bytes)]
        });
    Section::new("size", "Size")
        .table(both_models(report))
        .plot("Bytes by what they hold", plot::sizes(models))
        .table(table)
        .filled()
}

/// Both models in a few numbers.
fn both_models(report: &Report) -> Table {
    let models = [&report.models.reference, &report.models.candidate];
    let mut table = Table::new("model", "Both models").words(&["figure"]).numbers(&[
        "original",
        "quantized",
        "ratio",
    ]);
    let mut row = |label: &str, values: [Option<f64>; 2], show: fn(f64) -> String| {
        let [Some(before), Some(after)] = values else { return };
        let cells = values.map(|it| Cell::shown(it, show));
        let [original, quantized] = cells;
        let ratio = Cell::times(finite(after / before));
        table.row(vec![Cell::name(label), original, quantized, ratio]);
    };
    let known = |it: f64| (it > 0.0).then_some(it);
    row("all files", models.map(|it| known(it.bytes as f64)), |it| bytes(it as u64));
    let weights = |it: &ModelFacts| known(it.weights.iter().map(|it| it.bytes as f64).sum());
    row("weights", models.map(weights), |it| bytes(it as u64));
    row("bits per weight", models.map(|it| it.bits_per_weight), |it| format!("{it:.2}"));
    row("nodes", models.map(|it| known(it.nodes as f64)), |it| count(it as usize));
    table
}
