//! How fast both models run, and what they need.

use super::{
    super::{
        number::{interval, plural},
        plot,
    },
    Cell, Limits, Section, Table, name,
};
use crate::{Footprints, Latency, Phase, Report};

pub(super) fn section(report: &Report, limits: Limits) -> Option<Section> {
    let figures = &report.figures;
    let mut section =
        Section::new("performance", "Performance").brief().table(latency(&figures.latency, limits));
    // A page has room for a few pictures.
    for it in figures.latency.iter().take(4) {
        let caption =
            format!("{} {}: every run, and the medians", phase(it.phase), name(&it.input));
        section = section.plot(caption, plot::latency(it));
    }
    if let Some(both) = &figures.footprint {
        section = section.table(footprint(both));
    }
    let kernels = figures.kernels.as_ref().map(|it| format!("Kernels: {}", it.verdict));
    section.note(kernels).filled()
}

fn phase(it: Phase) -> &'static str {
    match it {
        Phase::Run => "run",
        Phase::Prefill => "prefill",
        Phase::Decode => "decode",
    }
}

fn latency(list: &[Latency], limits: Limits) -> Table {
    let repeats = list.first().map_or(0, |it| it.repeats);
    let caption = format!("Medians of {} of each model, in turn", plural(repeats, "run"));
    Table::new("latency", caption)
        .words(&["phase", "input"])
        .numbers(&["original", "quantized", "ratio", "10 % … 90 % of the ratios", "times as fast"])
        .fill(list.iter(), limits, |it| {
            let spread = it.ratio_spread;
            vec![
                Cell::name(phase(it.phase)),
                Cell::name(&it.input),
                Cell::milliseconds(it.reference_ms),
                Cell::milliseconds(it.candidate_ms),
                Cell::times(it.ratio),
                spread.map_or_else(Cell::none, |it| Cell::shown(Some(it.low), |_| interval(it))),
                Cell::number(it.speedup),
            ]
        })
}

fn footprint(both: &Footprints) -> Table {
    let mut table = Table::new("footprint", "Each model alone in a process")
        .words(&["figure"])
        .numbers(&["original", "quantized", "ratio"]);
    let (reference, candidate) = (&both.reference, &both.candidate);
    let bytes = |it: Option<u64>| it.map_or_else(Cell::none, Cell::bytes);
    let ratio = |a: Option<f64>, b: Option<f64>| {
        let ratio = a.zip(b).map(|(a, b)| b / a);
        Cell::times(ratio.filter(|it| it.is_finite()))
    };
    let of_bytes =
        |a: Option<u64>, b: Option<u64>| ratio(a.map(|it| it as f64), b.map(|it| it as f64));
    table.row(vec![
        Cell::name("until the session is ready"),
        Cell::milliseconds(reference.load_ms),
        Cell::milliseconds(candidate.load_ms),
        ratio(reference.load_ms, candidate.load_ms),
    ]);
    table.row(vec![
        Cell::name("peak memory after one run"),
        bytes(reference.peak_bytes),
        bytes(candidate.peak_bytes),
        of_bytes(reference.peak_bytes, candidate.peak_bytes),
    ]);
    table.row(vec![
        Cell::name("memory before the model was loaded"),
        bytes(reference.base_bytes),
        bytes(candidate.base_bytes),
        of_bytes(reference.base_bytes, candidate.base_bytes),
    ]);
    table
}
