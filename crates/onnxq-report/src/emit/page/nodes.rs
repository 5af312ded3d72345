//! What the candidate's nodes are: precision, what stays in float, operators, bytes.

use std::collections::BTreeSet;

use super::{super::plot, Cell, Limits, Section, Table, Tone};
use crate::{
    Report,
    document::{Kept, PrecisionRow},
};

pub(super) fn precision(report: &Report, limits: Limits) -> Option<Section> {
    let differing = report.precision.iter().filter(|it| it.differs.is_some()).count();
    let mut list: Vec<(usize, &PrecisionRow)> = report.precision.iter().enumerate().collect();
    // What runs in another way than it says is what one looks for.
    list.sort_by_key(|it| it.1.differs.is_none());
    let table = Table::new("node", "Nodes with weights")
        .numbers(&["order"])
        .words(&["node", "operator", "weight"])
        .numbers(&["bytes"])
        .words(&["declared", "executed", "differs"])
        .fill(list.into_iter(), limits, |(at, it)| row(at, it));
    let note = match differing {
        0 => None,
        n => Some(format!("Not run as declared: {n} of {} nodes.", report.precision.len())),
    };
    Section::new("precision", "Precision map")
        .plot(
            "Every node with a weight, in the order of execution, by what its weight is stored in",
            plot::precision(&report.precision),
        )
        .note(note)
        .table(table)
        .filled()
}

fn row(at: usize, it: &PrecisionRow) -> Vec<Cell> {
    let differs = Cell::sentence(it.differs.as_deref().unwrap_or_default());
    vec![
        Cell::count(at + 1),
        Cell::name(&it.node),
        Cell::name(&it.op),
        Cell::name(&it.precision).patched(plot::precision_class(&it.precision)),
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
                Cell::name(&it.op),
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
        .plot("Bytes by what they hold", plot::sizes(models))
        .table(table)
        .filled()
}
