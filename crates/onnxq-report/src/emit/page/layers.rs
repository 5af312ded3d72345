//! Where the error enters: layer by layer, and what would help.

use super::{
    super::{
        number::{growth, number, plural},
        plot,
    },
    Cell, Limits, Section, Table, Tone, layer,
};
use crate::{
    Report,
    document::{Attribution, LayerError},
};
use onnxq_ir::human::of_samples;

pub(super) fn section(report: &Report, limits: Limits) -> Option<Section> {
    let it = report.attribution.as_ref()?;
    let (label, _) = measure(&it.measure);
    let intro = format!(
        "Values that both models compute, on {}. Local error: the layer reads what the original \
         computes. Accumulated error: as it runs in the quantized model. Loss is {label}; of the \
         whole model it is {}.",
        of_samples(it.samples, report.figures.samples),
        number(it.loss),
    );
    let unmatched = format!(
        "Without a row, as only one model computes them: {}.",
        plural(it.unmatched, "value")
    );
    Section::new("layers", "Where the error enters")
        .brief()
        .intro(intro)
        .plot(
            "Signal to noise along the order of execution; lower is worse. Numbers are ranks. Move \
             the pointer over a layer to see its name.",
            plot::layers(&it.layers),
        )
        .table(suggestions(it, limits))
        .block(
            "all-flags",
            "All of them, to add to the command",
            it.flags.as_deref().unwrap_or_default(),
            limits,
        )
        .table(layers(it, limits))
        .details("Layer by layer, the worst first", layer::details(report, limits))
        .note((it.unmatched > 0).then_some(unmatched))
        .filled()
}

/// What a measure of loss is called, and how it is written.
pub(super) fn measure(name: &str) -> (&str, fn(f64) -> String) {
    match name {
        "kl" => ("mean KL in nats", number),
        "noise_to_signal" => ("noise power over signal power", number),
        other => (other, number),
    }
}

fn suggestions(it: &Attribution, limits: Limits) -> Table {
    Table::new("suggestion", "What would help, and what it costs")
        .words(&["node", "keep in, or give"])
        .numbers(&["size", "loss before", "loss after", "gain"])
        .words(&["add to the command"])
        .fill(it.suggestions.iter(), limits, |it| {
            vec![
                Cell::node(&it.node),
                Cell::name(&it.keep_in),
                Cell::shown(Some(it.bytes as f64), |_| growth(it.bytes)),
                Cell::number(Some(it.loss_before)),
                Cell::number(Some(it.loss_after)),
                Cell::number(Some(it.loss_before - it.loss_after)),
                it.flag.as_deref().map_or_else(Cell::none, Cell::sentence),
            ]
        })
}

fn layers(it: &Attribution, limits: Limits) -> Table {
    let mut list: Vec<(usize, &LayerError)> = it.layers.iter().enumerate().collect();
    let detailed = layer::shown(it, limits);
    list.sort_by_key(|(_, it)| if it.rank == 0 { usize::MAX } else { it.rank });
    Table::new("layer", "Layers, those that hurt most first")
        .numbers(&["rank", "order"])
        .words(&["node", "operator", "quantized"])
        .numbers(&["local SQNR", "accumulated SQNR", "loss without"])
        .fill(list.into_iter(), limits, |(at, it)| {
            let node = Cell::node(&it.node);
            let node = if detailed.contains(&at) { node.linked(layer::id(at)) } else { node };
            let quantized = Cell::name(if it.quantized { "yes" } else { "no" });
            vec![
                if it.rank == 0 { Cell::none() } else { Cell::count(it.rank) },
                Cell::count(at + 1),
                node,
                Cell::operator(&it.op),
                quantized,
                exact_or(it.local_sqnr_db),
                exact_or(it.accumulated_sqnr_db),
                Cell::number(it.loss_without),
            ]
        })
}

fn exact_or(sqnr: Option<f64>) -> Cell {
    let exact = Cell { text: "exact".into(), sort: Some(f64::MAX), ..Cell::default() };
    sqnr.map_or(exact.toned(Tone::Plain), |it| Cell::decibel(Some(it)))
}
