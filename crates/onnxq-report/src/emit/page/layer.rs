//! Each layer by itself: its range, its error, what is before and behind it, what would help.

use super::{
    super::number::{decibel, interval, number},
    Details, Fact, Limits, Link, excerpt, name, sentence, spread,
    table::tail,
};
use crate::{
    Report,
    document::{Attribution, LayerError, PrecisionRow, Suggestion},
};
use onnxq_ir::human::of_samples;

/// Layers that have a part of their own, and neighbours that are named.
const MOST: usize = 30;
const NEIGHBOURS: usize = 6;
const NAME: usize = 48;
/// From here on in dB, an error is what float32 rounds in any case.
const ROUNDING: f64 = 100.0;

/// Those with figures, the worst first.
pub(super) fn details(report: &Report, limits: Limits) -> Vec<Details> {
    let Some(found) = &report.attribution else { return Vec::new() };
    let shown = shown(found, limits);
    shown.iter().map(|at| Layer { report, found, shown: &shown, at: *at }.details()).collect()
}

/// Places of the layers that have a part of their own.
pub(super) fn shown(found: &Attribution, limits: Limits) -> Vec<usize> {
    let has_figures = |it: &LayerError| {
        it.loss_without.is_some() || it.local_sqnr_db.is_some_and(|db| db < ROUNDING)
    };
    let all = found.layers.iter().enumerate();
    let mut list: Vec<(usize, &LayerError)> = all.filter(|it| has_figures(it.1)).collect();
    list.sort_by_key(|it| it.1.rank);
    list.truncate(MOST.min(limits.rows));
    list.into_iter().map(|it| it.0).collect()
}

/// For links: the place in the order of execution.
pub(super) fn id(at: usize) -> String {
    format!("layer-{}", at + 1)
}

struct Layer<'a> {
    report: &'a Report,
    found: &'a Attribution,
    /// Those that links can lead to.
    shown: &'a [usize],
    at: usize,
}

impl Layer<'_> {
    fn layer(&self) -> &LayerError {
        &self.found.layers[self.at]
    }

    fn details(&self) -> Details {
        let layer = self.layer();
        let error = layer.local_sqnr_db.map_or("exact".to_owned(), decibel);
        let help = self.found.suggestions.iter().find(|help| help.node == layer.node);
        let flag = help.and_then(|it| it.flag.as_deref()).map(sentence);
        Details {
            id: id(self.at),
            title: format!(
                "{}. {} · local error {error}",
                layer.rank,
                name(&tail(&layer.node, NAME))
            ),
            facts: self.facts(),
            plots: spread::plots(layer),
            help: help.map(|help| self.help(help)),
            flag,
        }
    }

    fn help(&self, one: &Suggestion) -> String {
        let add = if one.flag.is_some() { ". Add to the command:" } else { "" };
        sentence(&format!("What would help: {}{add}", one.text))
    }

    fn facts(&self) -> Vec<Fact> {
        let layer = self.layer();
        let mut list = vec![text("node", name(&layer.node)), text("operator", name(&layer.op))];
        list.push(text("value", name(&layer.value)));
        let row = self.report.precision.iter().find(|row| row.node == layer.node);
        list.extend(row.map(|it| text("weight", weight(it))));
        let ranges = [
            ("range, original", layer.reference_range),
            ("range, quantized", layer.candidate_range),
        ];
        for (label, range) in ranges {
            list.extend(range.map(|it| text(label, interval(it))));
        }
        let errors = [
            ("local error (SQNR)", layer.local_sqnr_db),
            ("accumulated error (SQNR)", layer.accumulated_sqnr_db),
        ];
        for (label, db) in errors {
            list.push(text(label, db.map_or("exact".to_owned(), decibel)));
        }
        list.extend(layer.loss_without.map(|loss| text("loss without its error", self.loss(loss))));
        list.extend(self.neighbours("computed from", self.before()));
        list.extend(self.neighbours("read by", self.behind()));
        list
    }

    fn loss(&self, without: f64) -> String {
        let (measure, _) = super::layers::measure(&self.found.measure);
        let data = of_samples(self.found.samples, self.report.figures.samples);
        let (without, with) = (number(without), number(self.found.loss));
        format!("{without} instead of {with}: {measure}, on {data}")
    }

    /// A report that someone edited may name layers that are not there.
    fn before(&self) -> Vec<usize> {
        let count = self.found.layers.len();
        self.layer().inputs.iter().copied().filter(|it| *it < count).collect()
    }

    fn behind(&self) -> Vec<usize> {
        let all = self.found.layers.iter().enumerate();
        all.filter(|it| it.1.inputs.contains(&self.at)).map(|it| it.0).collect()
    }

    fn neighbours(&self, label: &'static str, places: Vec<usize>) -> Option<Fact> {
        let link = |at: &usize| {
            let layer = &self.found.layers[*at];
            let raw = if layer.node.is_empty() { &layer.value } else { &layer.node };
            Link { text: name(&tail(raw, NAME)), id: self.shown.contains(at).then(|| id(*at)) }
        };
        let mut links: Vec<Link> = places.iter().take(NEIGHBOURS).map(link).collect();
        if places.len() > NEIGHBOURS {
            let text = format!("… and {} more", places.len() - NEIGHBOURS);
            links.push(Link { text, id: None });
        }
        (!links.is_empty()).then_some(Fact { label, links, full: None })
    }
}

fn weight(row: &PrecisionRow) -> String {
    let bytes = onnxq_ir::human::bytes(row.bytes);
    let mut text = format!("stored as {}, {bytes}", row.precision);
    let computes = row.computes.as_ref().filter(|computes| **computes != row.precision);
    text += &computes.map_or(String::new(), |it| format!("; computes in {it}"));
    text += &row.executed.as_ref().map_or(String::new(), |it| format!("; runs as {it}"));
    excerpt(&text)
}

fn text(label: &'static str, text: String) -> Fact {
    Fact { label, links: vec![Link { text, id: None }], full: None }
}
