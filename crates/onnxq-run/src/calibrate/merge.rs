//! Statistics of several runs of one model as one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    CalibrateError, Identity, Stats,
    stats::{
        DRIFT, Floats, HESSIAN, MAX_ABS, MEAN_SQUARE, Metadata, VERSION, damaged, square, write,
    },
};
use crate::data::Sketch;
use onnxq_numerics::stats::{Hessian, InputStats};

/// Statistics of several runs of one model as one file: means weighted by rows, largest maxima.
pub fn merge(paths: &[PathBuf], output: &Path) -> Result<(), CalibrateError> {
    let files: Vec<Stats> = paths.iter().map(|it| Stats::read(it)).collect::<Result<_, _>>()?;
    let Some(first) = files.first() else { return Ok(()) };
    let mut identity = first.identity.clone();
    let sketch = |it: &Identity| Sketch::parse(it.samples, &it.origin.sketch);
    let mut seen = sketch(&identity);
    for file in &files[1..] {
        seen = seen.zip(sketch(&file.identity)).map(|(a, b)| a.merge(&b));
        let same = Identity { data: file.identity.data.clone(), ..identity.clone() };
        let mut same = Identity { samples: file.identity.samples, ..same };
        // What was not guided has nothing that could differ.
        if identity.guide.is_empty() {
            identity.guide.clone_from(&file.identity.guide);
        } else if file.identity.guide.is_empty() {
            same.guide = String::new();
        }
        file.identity.check(&same, &file.path)?;
        identity.data.extend(file.identity.data.iter().cloned());
        identity.samples += file.identity.samples;
    }
    identity.data.sort();
    identity.origin.sketch = seen.map_or(String::new(), |it| it.to_string());
    if files.len() > 1 {
        // Several data sets are known by their own digests.
        identity.origin.sha256 = String::new();
    }
    let (mut rows, mut list) = (BTreeMap::new(), Vec::new());
    let names: BTreeSet<&str> = files.iter().flat_map(Stats::names).collect();
    for name in names {
        let stats = files.iter().filter_map(|it| it.get(name).transpose());
        let stats: Vec<InputStats> = stats.collect::<Result<_, _>>()?;
        let merged = combine(&stats)
            .ok_or_else(|| damaged(output, format!("`{name}` has rows of different lengths")))?;
        rows.insert(name.to_owned(), merged.rows);
        let mut push = |what: &str, values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
            let view = Floats { shape: [values.len()], bytes: bytes.into() };
            list.push((format!("{name}.{what}"), view));
        };
        push(MEAN_SQUARE, &merged.mean_square);
        push(MAX_ABS, &merged.max_abs);
        merged.hessian.iter().for_each(|it| push(HESSIAN, &it.lower));
        let drift = merged.drift.as_ref().and_then(|it| it.as_slice());
        drift.into_iter().for_each(|it| push(DRIFT, it));
    }
    write(output, &Metadata { version: VERSION.to_owned(), identity, rows }, list)
}

/// `None`: the lengths differ. Without a Hessian in each there is none.
fn combine(list: &[InputStats]) -> Option<InputStats> {
    let k = list.first()?.k();
    if list.iter().any(|it| it.k() != k) {
        return None;
    }
    let rows: u64 = list.iter().map(|it| it.rows).sum();
    let mean = |of: &dyn Fn(&InputStats) -> f32| {
        let sum: f64 = list.iter().map(|it| f64::from(of(it)) * it.rows as f64).sum();
        (sum / rows.max(1) as f64) as f32
    };
    let mean_square = (0..k).map(|at| mean(&|it| it.mean_square[at])).collect();
    let largest = |at: usize| list.iter().map(|it| it.max_abs[at]).fold(0.0, f32::max);
    let max_abs = (0..k).map(largest).collect();
    let lower = |it: &InputStats, at: usize| it.hessian.as_ref().map_or(0.0, |it| it.lower[at]);
    let all = list.iter().all(|it| it.hessian.is_some());
    let hessian = all.then(|| Hessian {
        k,
        lower: (0..Hessian::len_of(k)).map(|at| mean(&|it| lower(it, at))).collect(),
    });
    let moved =
        |it: &InputStats, at: usize| it.drift.as_ref().map_or(0.0, |it| it[(at / k, at % k)]);
    let all = list.iter().all(|it| it.drift.is_some());
    let drift = all.then(|| square(k, (0..k * k).map(|at| mean(&|it| moved(it, at))).collect()));
    Some(InputStats { rows, mean_square, max_abs, hessian, drift })
}
