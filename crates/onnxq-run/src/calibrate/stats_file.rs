//! Statistics of a model's inputs in a log until a run is complete, then in a file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CalibrateError, Identity,
    part_log::{Log, Record},
    stats::{
        DRIFT, Floats, HESSIAN, MAX_ABS, MEAN_SQUARE, Metadata, VERSION, damaged, floats, square,
        write,
    },
};
use onnxq_ir::onnx;
use onnxq_numerics::stats::{Hessian, InputStats, Needs};

/// The statistics of one run while it lasts: what was collected survives a killed process.
pub struct StatsFile {
    path: PathBuf,
    part: PathBuf,
    keep: bool,
    /// An earlier run has left something.
    resumed: bool,
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

impl StatsFile {
    /// Begins a run whose statistics go to `path`, or goes on with one that was interrupted.
    ///
    /// Without `keep` nothing stays once the run is complete, and what an interrupted run of something
    /// else left is of no use to anybody: it is begun anew. Statistics to keep are never overwritten.
    pub fn begin(path: &Path, identity: Identity, keep: bool) -> Result<StatsFile, CalibrateError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let io = |source| CalibrateError::StatsFile { path: part.clone(), source };
        if Log::is_foreign(&part).map_err(io)? {
            return Err(CalibrateError::Foreign { path: part });
        }
        let (mut log, records) = match Log::open(&part) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(CalibrateError::InUse { path: part });
            }
            opened => opened.map_err(io)?,
        };
        let is_same = match records.first() {
            Some(first) => goes_on(&log, *first, &identity, &part, keep)?,
            None => false,
        };
        let mut known = BTreeMap::new();
        if is_same {
            for &record in &records[1..] {
                let head = head(&log.read(record).map_err(io)?, &part)?.0;
                known.insert(head.name.clone(), (head, record));
            }
        } else {
            log.clear().map_err(io)?;
            log.append(&serde_json::to_vec(&identity).expect("plain data")).map_err(io)?;
        }
        let resumed = !known.is_empty();
        Ok(StatsFile { path: path.into(), part, keep, resumed, identity, log, known })
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

    /// The log of this run, if an earlier one has begun it.
    pub fn resumed(&self) -> Option<&Path> {
        self.resumed.then_some(&*self.part)
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

/// Whether a log is of the same run; an error if it is not and is to be kept.
fn goes_on(
    log: &Log,
    first: Record,
    identity: &Identity,
    part: &Path,
    keep: bool,
) -> Result<bool, CalibrateError> {
    let io = |source| CalibrateError::StatsFile { path: part.to_owned(), source };
    let bytes = log.read(first).map_err(io)?;
    let was = serde_json::from_slice(&bytes).map_err(|err| damaged(part, err));
    match was.and_then(|it: Identity| it.check(identity, part)) {
        Err(error) if keep => Err(error),
        same => Ok(same.is_ok()),
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
