//! Statistics of a model's inputs in a safetensors file, and in a log until a run is complete.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    CalibrateError,
    part_log::{Log, Record},
};
use crate::data::Sketch;
use onnxq_ir::onnx::{self, Files};
use onnxq_numerics::stats::{Hessian, InputStats, Needs};

const VERSION: &str = "onnxq.stats/1";
const KEY: &str = "onnxq";

/// What statistics belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 of all files of the model.
    pub model: String,
    /// SHA-256 of each data set, sorted.
    pub data: Vec<String>,
    pub samples: u64,
    /// A digest of the plan, if layers saw weights that were quantized by it; else empty.
    pub prefix: String,
    /// Where they come from; no part of what must agree.
    #[serde(default)]
    pub origin: StatsOrigin,
}

/// What a model says of statistics that it was made with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsOrigin {
    /// [`Contents`](super::Contents) of the samples; empty in files of older versions.
    pub sha256: String,
    pub sketch: String,
    /// The version that ran the model, and the CPU.
    pub onnxruntime: String,
    pub cpu: String,
}

/// The statistics of one run while it lasts: what was collected survives a killed process.
pub struct StatsFile {
    path: PathBuf,
    part: PathBuf,
    keep: bool,
    identity: Identity,
    log: Log,
    known: BTreeMap<String, (Head, Record)>,
}

/// What comes before the numbers of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    name: String,
    rows: u64,
    k: usize,
    hessian: bool,
    drift: bool,
}

/// The description of a whole file.
#[derive(Serialize, Deserialize)]
struct Metadata {
    version: String,
    #[serde(flatten)]
    identity: Identity,
    /// Rows observed of each input.
    rows: BTreeMap<String, u64>,
}

/// The digest of a model: of the contents of its files.
pub fn model_sha256(files: &Files) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files.contents() {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}

impl Identity {
    /// Whether statistics in the file at `path`, which belong to `self`, fit `wanted`.
    pub fn check(&self, wanted: &Identity, path: &Path) -> Result<(), CalibrateError> {
        let path = path.to_owned();
        if self.model != wanted.model {
            return Err(CalibrateError::OtherModel { path });
        }
        if self.data != wanted.data {
            return Err(CalibrateError::OtherData { path });
        }
        if self.samples != wanted.samples {
            let (actual, expected) = (self.samples, wanted.samples);
            return Err(CalibrateError::OtherSamples { path, actual, expected });
        }
        if self.prefix != wanted.prefix {
            return Err(CalibrateError::OtherPrefix { path });
        }
        Ok(())
    }
}

impl StatsFile {
    /// Begins a run whose statistics go to `path`, or goes on with one that was interrupted.
    ///
    /// Without `keep` nothing stays once the run is complete.
    pub fn begin(path: &Path, identity: Identity, keep: bool) -> Result<StatsFile, CalibrateError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let io = |source| CalibrateError::StatsFile { path: part.clone(), source };
        let old = match part.try_exists().map_err(io)? {
            true => Log::open(&part).map_err(io)?,
            false => None,
        };
        let mut known = BTreeMap::new();
        let log = match old {
            Some((log, records)) if !records.is_empty() => {
                let bytes = log.read(records[0]).map_err(io)?;
                let was: Identity =
                    serde_json::from_slice(&bytes).map_err(|err| damaged(&part, err))?;
                was.check(&identity, &part)?;
                for &record in &records[1..] {
                    let head = head(&log.read(record).map_err(io)?, &part)?.0;
                    known.insert(head.name.clone(), (head, record));
                }
                log
            }
            _ => {
                let mut log = Log::create(&part).map_err(io)?;
                let bytes = serde_json::to_vec(&identity).expect("plain data");
                log.append(&bytes).map_err(io)?;
                log
            }
        };
        Ok(StatsFile { path: path.into(), part, keep, identity, log, known })
    }

    /// What an earlier run collected of an input.
    pub fn get(&self, name: &str, needs: Needs) -> Result<Option<InputStats>, CalibrateError> {
        let Some((head, record)) = self.known.get(name) else { return Ok(None) };
        if needs == Needs::Hessian && !head.hessian {
            return Ok(None);
        }
        let bytes = self.log.read(*record).map_err(|it| self.io(it))?;
        decode(&bytes, &self.part).map(|it| Some(it.1))
    }

    /// Whether [`get`](Self::get) would find it.
    pub fn has(&self, name: &str, needs: Needs) -> bool {
        self.known.get(name).is_some_and(|it| it.0.hessian || needs < Needs::Hessian)
    }

    pub fn append(&mut self, name: &str, stats: &InputStats) -> Result<(), CalibrateError> {
        let (k, hessian, drift) = (stats.k(), stats.hessian.is_some(), stats.drift.is_some());
        let head = Head { name: name.to_owned(), rows: stats.rows, k, hessian, drift };
        let json = serde_json::to_vec(&head).expect("plain data");
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        let hessian = stats.hessian.iter().flat_map(|it| &it.lower);
        let drift = stats.drift.iter().flatten();
        let all = stats.mean_square.iter().chain(&stats.max_abs).chain(hessian).chain(drift);
        bytes.extend(all.flat_map(|it| it.to_le_bytes()));
        let record = self.log.append(&bytes).map_err(|it| self.io(it))?;
        self.known.insert(name.to_owned(), (head, record));
        Ok(())
    }

    /// The run is complete: one file at `path` in one step, or nothing at all.
    pub fn finish(self) -> Result<(), CalibrateError> {
        if self.keep {
            let rows = self.known.iter().map(|(name, it)| (name.clone(), it.0.rows)).collect();
            let version = VERSION.to_owned();
            let metadata = Metadata { version, identity: self.identity.clone(), rows };
            let part = onnx::map_file(&self.part).map_err(|it| self.io(it))?;
            let mut parts = Vec::new();
            for (head, record) in self.known.values() {
                parts.extend(views(head, record.bytes(&part), &self.part)?);
            }
            write(&self.path, &metadata, parts)?;
        }
        std::fs::remove_file(&self.part).map_err(|it| self.io(it))
    }

    fn io(&self, source: io::Error) -> CalibrateError {
        CalibrateError::StatsFile { path: self.part.clone(), source }
    }
}

fn head(bytes: &[u8], path: &Path) -> Result<(Head, usize), CalibrateError> {
    let short = || damaged(path, "a record is too short");
    let len = bytes.first_chunk::<8>().map(|it| u64::from_le_bytes(*it)).ok_or_else(short)?;
    let end = usize::try_from(len).ok().and_then(|it| it.checked_add(8)).ok_or_else(short)?;
    let json = bytes.get(8..end).ok_or_else(short)?;
    let head: Head = serde_json::from_slice(json).map_err(|err| damaged(path, err))?;
    let count = (bytes.len() - end) / size_of::<f32>();
    // A hostile `k` must not overflow.
    let fits = head.k <= count && {
        let hessian = if head.hessian { Hessian::len_of(head.k) } else { 0 };
        let drift = if head.drift { head.k * head.k } else { 0 };
        (2 * head.k + hessian + drift) * size_of::<f32>() == bytes.len() - end
    };
    fits.then_some((head, end)).ok_or_else(short)
}

fn decode(bytes: &[u8], path: &Path) -> Result<(Head, InputStats), CalibrateError> {
    let (head, start) = head(bytes, path)?;
    let floats = floats(&bytes[start..]);
    let (mean_square, rest) = floats.split_at(head.k);
    let (max_abs, rest) = rest.split_at(head.k);
    let lower = if head.hessian { Hessian::len_of(head.k) } else { 0 };
    let (lower, drift) = rest.split_at(lower);
    let hessian = head.hessian.then(|| Hessian { k: head.k, lower: lower.to_vec() });
    let drift = head.drift.then(|| square(head.k, drift.to_vec()));
    let (mean_square, max_abs) = (mean_square.to_vec(), max_abs.to_vec());
    let stats = InputStats { rows: head.rows, mean_square, max_abs, hessian, drift };
    Ok((head, stats))
}

fn square(k: usize, values: Vec<f32>) -> Array2<f32> {
    Array2::from_shape_vec((k, k), values).expect("the length was checked")
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let float = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("4 bytes"));
    bytes.chunks_exact(4).map(float).collect()
}

fn damaged(path: &Path, fact: impl ToString) -> CalibrateError {
    CalibrateError::Damaged { path: path.into(), fact: fact.to_string() }
}

/// A vector of floats that is written when its turn comes.
struct Floats {
    shape: [usize; 1],
    bytes: Bytes,
}

impl View for Floats {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The tensors of a record, as slices of the log.
fn views(head: &Head, bytes: Bytes, path: &Path) -> Result<Vec<(String, Floats)>, CalibrateError> {
    let (_, start) = self::head(&bytes, path)?;
    let name = &head.name;
    let mut list = Vec::new();
    let mut at = start;
    let mut push = |what: &str, count: usize| {
        let end = at + count * size_of::<f32>();
        list.push((
            format!("{name}.{what}"),
            Floats { shape: [count], bytes: bytes.slice(at..end) },
        ));
        at = end;
    };
    push(MEAN_SQUARE, head.k);
    push(MAX_ABS, head.k);
    if head.hessian {
        push(HESSIAN, Hessian::len_of(head.k));
    }
    if head.drift {
        push(DRIFT, head.k * head.k);
    }
    Ok(list)
}

const MEAN_SQUARE: &str = "mean_square";
const MAX_ABS: &str = "max_abs";
const HESSIAN: &str = "hessian";
const DRIFT: &str = "drift";

fn write(
    path: &Path,
    metadata: &Metadata,
    list: Vec<(String, Floats)>,
) -> Result<(), CalibrateError> {
    // One entry, because the order of several would change from run to run.
    let json = serde_json::to_string(metadata).expect("plain data");
    let entries = HashMap::from([(KEY.to_owned(), json)]);
    let io = |err: &dyn ToString| CalibrateError::StatsFile {
        path: path.into(),
        source: io::Error::other(err.to_string()),
    };
    let whole = std::path::absolute(path).map_err(|err| io(&err))?;
    safetensors::serialize_to_file(list, Some(entries), &whole).map_err(|err| io(&err))
}

/// A whole file of statistics, mapped.
pub struct Stats {
    path: PathBuf,
    bytes: Bytes,
    pub identity: Identity,
    rows: BTreeMap<String, u64>,
}

impl Stats {
    pub fn read(path: &Path) -> Result<Stats, CalibrateError> {
        let io = |source| CalibrateError::StatsFile { path: path.into(), source };
        let bytes = onnx::map_file(path).map_err(io)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|err| damaged(path, err))?;
        let json = header.metadata().as_ref().and_then(|it| it.get(KEY));
        let json = json.ok_or_else(|| damaged(path, "it is not from onnxq"))?;
        let metadata: Metadata = serde_json::from_str(json).map_err(|err| damaged(path, err))?;
        if metadata.version != VERSION {
            return Err(damaged(path, format!("its version is {}", metadata.version)));
        }
        let stats =
            Stats { path: path.into(), bytes, identity: metadata.identity, rows: metadata.rows };
        Ok(stats)
    }

    /// The inputs that it knows.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(|it| &**it)
    }

    pub fn get(&self, name: &str) -> Result<Option<InputStats>, CalibrateError> {
        let Some(&rows) = self.rows.get(name) else { return Ok(None) };
        let tensors =
            SafeTensors::deserialize(&self.bytes).map_err(|err| damaged(&self.path, err))?;
        let vector = |what: &str| -> Result<Option<Vec<f32>>, CalibrateError> {
            let Ok(view) = tensors.tensor(&format!("{name}.{what}")) else { return Ok(None) };
            if view.dtype() != Dtype::F32 {
                return Err(damaged(&self.path, format!("`{name}.{what}` is not F32")));
            }
            let values = floats(view.data());
            if values.iter().any(|it| !it.is_finite()) {
                return Err(damaged(&self.path, format!("`{name}.{what}` is not finite")));
            }
            Ok(Some(values))
        };
        let missing = || damaged(&self.path, format!("`{name}` is incomplete"));
        let mean_square = vector(MEAN_SQUARE)?.ok_or_else(missing)?;
        let max_abs = vector(MAX_ABS)?.ok_or_else(missing)?;
        let k = mean_square.len();
        let hessian = vector(HESSIAN)?.map(|lower| Hessian { k, lower });
        let sized = hessian.as_ref().is_none_or(|it| it.lower.len() == Hessian::len_of(k));
        let drift = vector(DRIFT)?;
        let squared = drift.as_ref().is_none_or(|it| it.len() == k * k);
        if max_abs.len() != k || !sized || !squared {
            return Err(missing());
        }
        let drift = drift.map(|it| square(k, it));
        Ok(Some(InputStats { rows, mean_square, max_abs, hessian, drift }))
    }
}

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
        let same = Identity { samples: file.identity.samples, ..same };
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
    let names: std::collections::BTreeSet<&str> = files.iter().flat_map(Stats::names).collect();
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

/// A line of `onnxq calibrate --show`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatsRow {
    pub name: String,
    pub k: usize,
    pub rows: u64,
    /// Fraction of `Σ mean_square` in the 1 % of channels that have most of it.
    pub top_share: f64,
    pub max_abs: f32,
    /// Least, median and largest mean square of a channel.
    pub mean_square: [f32; 3],
    /// Channels that were always zero.
    pub dead: usize,
    pub hessian: bool,
}

/// What a file holds, by input.
pub fn describe(stats: &Stats) -> Result<Vec<StatsRow>, CalibrateError> {
    let row = |name: &str| {
        let it = stats.get(name)?.ok_or_else(|| damaged(&stats.path, "an input is missing"))?;
        Ok(describe_input(name, &it))
    };
    stats.names().map(row).collect()
}

fn describe_input(name: &str, stats: &InputStats) -> StatsRow {
    let mut sorted = stats.mean_square.clone();
    sorted.sort_by(f32::total_cmp);
    let sum = |it: &[f32]| it.iter().map(|it| f64::from(*it)).sum::<f64>();
    let (k, total) = (sorted.len(), sum(&sorted));
    let top = sum(&sorted[k - k.div_ceil(100)..]);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    StatsRow {
        name: name.to_owned(),
        k,
        rows: stats.rows,
        top_share: if total > 0.0 { top / total } else { 0.0 },
        max_abs: stats.max_abs.iter().copied().fold(0.0, f32::max),
        mean_square: [at(0), at(k / 2), at(k.saturating_sub(1))],
        dead: stats.max_abs.iter().filter(|it| **it == 0.0).count(),
        hessian: stats.hessian.is_some(),
    }
}
