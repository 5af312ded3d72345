//! `onnxq calibrate --observer`: the ranges that quantized values of activations would span.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Table, Ui};
use onnxq_ir::{
    Model, ValueId,
    diag::EXIT_NOTHING,
    human::{grouped, listed},
    ops::Layout,
    suggest::suggest,
};
use onnxq_numerics::{
    affine::Interval,
    observe::{ObserverSpec, RangeStats},
    specs::{Settings, Spec},
};
use onnxq_run::calibrate::{self, Run, can_tap};

/// Quantized values of 8 bits.
const LEVELS: u32 = 256;

/// `entropy`, `percentile=99.99`, `mse=2.4`.
pub(crate) fn observer(text: &str) -> Result<ObserverSpec, String> {
    let (word, setting) = match text.split_once('=') {
        Some((word, setting)) => (word, Some(setting)),
        None => (text, None),
    };
    let mut spec = serde_json::from_value(word.into()).map_err(|_| unknown(word))?;
    if let Some(text) = setting {
        spec = with_number(spec, text)?;
    }
    spec.check().map_err(|it| it.to_string())?;
    Ok(spec)
}

/// Names that other tools have for observers.
const ALIASES: &[(&str, &[&str])] = &[
    ("entropy", &["kl", "kld", "kl_divergence", "histogram"]),
    ("min_max", &["minmax", "max", "absmax"]),
    ("mse", &["l2", "mse_range"]),
];

fn unknown(word: &str) -> String {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    let alias = ALIASES.iter().find(|row| row.1.contains(&&*lower)).map(|row| row.0);
    let near = alias.or_else(|| suggest(&lower, ObserverSpec::NAMES.iter().copied()));
    match near {
        Some(near) => format!("there is no observer `{word}`; did you mean `{near}`?"),
        None => {
            format!("there is no observer `{word}`; known are {}", ObserverSpec::NAMES.join(", "))
        }
    }
}

/// The observer with its only setting at this number.
fn with_number(spec: ObserverSpec, text: &str) -> Result<ObserverSpec, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    let mut tree = serde_json::to_value(spec).expect("settings are plain data");
    match only_setting(&mut tree) {
        Some(it) => *it = number.into(),
        None => {
            let with: Vec<String> = ObserverSpec::all()
                .iter()
                .filter(|it| spellings(it).len() > 1)
                .map(|it| format!("{}=NUMBER", it.name()))
                .collect();
            return Err(format!("only {} have settings", listed(&with, "and")));
        }
    }
    serde_json::from_value(tree).map_err(|it| it.to_string())
}

/// `{percentile: {percentile: 99.9}}` → `99.9`.
fn only_setting(tree: &mut Value) -> Option<&mut Value> {
    let settings = tree.as_object_mut()?.values_mut().next()?.as_object_mut()?;
    let mut values = settings.values_mut();
    let only = values.next().filter(|it| it.is_number())?;
    values.next().is_none().then_some(only)
}

/// Of the flag: each observer, and how to give it a number.
pub(crate) fn help() -> String {
    let spellings: Vec<String> = ObserverSpec::all().iter().flat_map(spellings).collect();
    let list = spellings.join(", ");
    format!("Print the ranges of what layers read and make instead: {list}")
}

/// `mse` and `mse=2.0`.
fn spellings(spec: &ObserverSpec) -> Vec<String> {
    let mut tree = serde_json::to_value(spec).expect("settings are plain data");
    let with_number = only_setting(&mut tree).map(|it| format!("{}={it}", spec.name()));
    [spec.name().to_owned()].into_iter().chain(with_number).collect()
}

/// A line of the table.
#[derive(Serialize)]
struct Row {
    name: String,
    samples: u64,
    values: u64,
    min: f32,
    max: f32,
    /// What quantized values would span.
    range: Interval,
    /// The share of values outside of it.
    clipped: f64,
}

/// Runs the model on the data and prints the ranges of what its layers read and make.
pub(crate) fn run(run: Run<'_>, spec: ObserverSpec, ui: &Ui) -> Result<u8, Failure> {
    let model = run.model;
    let values = activations(model);
    if values.is_empty() {
        return Ok(EXIT_NOTHING);
    }
    let stats = calibrate::ranges(run, &values, &ui.ctx())?;
    let row = |value: &ValueId| row(&model.value(*value).name, &stats[value], spec);
    let rows: Vec<Row> = values.par_iter().map(row).collect();
    if ui.global.json {
        ui.print_json(&rows)?;
    } else {
        ui.print(&table(&rows))?;
    }
    Ok(0)
}

/// What the products of the main graph read and make, in their order.
fn activations(model: &Model) -> Vec<ValueId> {
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for id in model.nodes_of(model.main) {
        let node = model.node(id);
        if !node.op.float_layout().is_some_and(Layout::is_product) {
            continue;
        }
        let inputs = node.inputs.iter().take(2).flatten();
        let both = inputs.chain(&node.outputs).copied();
        list.extend(both.filter(|it| can_tap(model, *it).is_ok() && seen.insert(*it)));
    }
    list
}

fn row(name: &str, stats: &RangeStats, spec: ObserverSpec) -> Row {
    let (histogram, range) = (&stats.histogram, spec.range(stats, LEVELS, false));
    Row {
        name: name.to_owned(),
        samples: stats.samples,
        values: histogram.count(),
        min: histogram.min(),
        max: histogram.max(),
        range,
        clipped: histogram.outside(range),
    }
}

fn table(rows: &[Row]) -> String {
    let header = ["activation", "values", "min", "max", "from", "to", "clipped"];
    let mut table = Table::new(header).right(&[1, 2, 3, 4, 5, 6]);
    for it in rows {
        let [min, max, lo, hi] =
            [it.min, it.max, it.range.lo, it.range.hi].map(|it| format!("{it:.4}"));
        let clipped = format!("{:.4} %", 100.0 * it.clipped);
        table.row([&it.name, &grouped(it.values), &min, &max, &lo, &hi, &clipped]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_numerics::observe::Percentile;

    #[test]
    fn observers_are_words_with_a_number() {
        let percentile = ObserverSpec::Percentile(Percentile { percentile: 99.9 });
        assert_eq!(observer("percentile=99.9"), Ok(percentile));
        assert_eq!(observer("min_max"), Ok(ObserverSpec::default()));
        for text in ["", "median", "entropy=3", "percentile=x", "percentile=3", "mse=NaN"] {
            assert!(observer(text).is_err(), "{text}");
        }
    }
}
