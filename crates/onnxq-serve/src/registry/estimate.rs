//! What a model will take of memory: as it was measured last time, else guessed from its files.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use crate::{config::ModelConfig, log::Log};
use onnxq_ir::fs::replace;
use onnxq_run::worker::Memory;

/// Memory of a loaded model in sizes of its files, before it is known.
const GUESS: f64 = 2.5;
/// A larger file of what was measured is none of ours.
const MOST_BYTES: u64 = 1 << 20;
/// Entries that are kept; the oldest models are no longer there.
const MOST_MODELS: usize = 1000;

/// What was measured of a model, and of which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    /// Of its files.
    size: u64,
    /// Nanoseconds since 1970 of the youngest of them.
    modified: u64,
    context: Option<usize>,
    threads: usize,
    /// Of a slot: after loading, with a full cache.
    bytes: u64,
}

pub(super) struct Estimates {
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<PathBuf, Measured>>,
}

impl Estimates {
    /// From a file that need not be there.
    pub(super) fn read(file: Option<PathBuf>, log: &Log) -> Estimates {
        let known = file.as_deref().map(read).transpose().unwrap_or_else(|error| {
            log.warn("", &format!("what was measured of models earlier is not known: {error}"));
            None
        });
        Estimates { file, known: Mutex::new(known.unwrap_or_default()) }
    }

    /// Of one slot. A guess is never a reason to refuse a model that is alone.
    pub(super) fn of(&self, model: &ModelConfig, budget: u64) -> u64 {
        let (size, modified) = files(&model.path);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let measured = known.get(&model.path).filter(|it| {
            (it.size, it.modified) == (size, modified)
                && (it.context, it.threads) == (model.context, model.threads)
        });
        match measured {
            Some(it) => it.bytes,
            None => ((size as f64 * GUESS) as u64).min(budget),
        }
    }

    /// A disk that is full is worth a warning.
    pub(super) fn remember(&self, model: &ModelConfig, bytes: u64, log: &Log) {
        let Some(file) = &self.file else { return };
        let (size, modified) = files(&model.path);
        let (context, threads) = (model.context, model.threads);
        let new = Measured { size, modified, context, threads, bytes };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_close = |old: &Measured| {
            Measured { bytes, ..old.clone() } == new && old.bytes.abs_diff(bytes) < bytes / 16
        };
        if known.get(&model.path).is_some_and(is_close) {
            return;
        }
        known.insert(model.path.clone(), new);
        if known.len() > MOST_MODELS {
            known.retain(|path, _| path.exists());
        }
        if let Err(error) = write(file, &known) {
            log.warn(&model.name, &format!("what it takes of memory cannot be kept: {error}"));
        }
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<PathBuf, Measured>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file?,
    };
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

fn write(path: &Path, known: &BTreeMap<PathBuf, Measured>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    replace(path, &serde_json::to_vec_pretty(known)?)
}

/// Bytes of a model's files, and when the youngest changed.
fn files(path: &Path) -> (u64, u64) {
    let (mut size, mut modified) = (0, 0);
    let mut add = |meta: io::Result<fs::Metadata>| {
        let Some(meta) = meta.ok().filter(fs::Metadata::is_file) else { return };
        size += meta.len();
        let time = meta.modified().ok().and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        modified = modified.max(time.map_or(0, |it| it.as_nanos() as u64));
    };
    if path.is_file() {
        add(fs::metadata(path));
        // Weights that lie beside the graph are named after it.
        let stem = path.file_stem().map(|it| it.to_string_lossy().into_owned());
        let is_data = |name: &str| {
            let rest = stem.as_ref().and_then(|it| name.strip_prefix(&**it));
            rest.is_some_and(|it| it.starts_with('.') && it.contains("data"))
        };
        for entry in fs::read_dir(path.with_file_name("")).into_iter().flatten().flatten() {
            if is_data(&entry.file_name().to_string_lossy()) {
                add(fs::metadata(entry.path()));
            }
        }
    } else {
        // Also `onnx/model.onnx`, as some layouts have it.
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries(path) {
            add(fs::metadata(entry.path()));
            entries(&entry.path()).for_each(|it| add(fs::metadata(it.path())));
        }
    }
    (size, modified)
}

/// Most of what the machine has, or of what this process's group may have.
pub(crate) fn budget() -> u64 {
    (Memory::whole().unwrap_or(UNKNOWN) as f64 * 0.8) as u64
}

/// Where the system does not say what it has.
const UNKNOWN: u64 = 5 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_of_that_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        fs::write(&path, [0; 1000]).unwrap();
        fs::write(folder.path().join("m.onnx.data"), [0; 3000]).unwrap();
        fs::write(folder.path().join("other.onnx"), [0; 9000]).unwrap();
        let model = ModelConfig::new("m", &path);
        let state = folder.path().join("cache/state.json");
        let log = Log::silent();
        let fresh = Estimates::read(Some(state.clone()), &log);
        assert_eq!([fresh.of(&model, 1 << 20), fresh.of(&model, 5000)], [10_000, 5000]);
        fresh.remember(&model, 7777, &log);
        let again = Estimates::read(Some(state.clone()), &log);
        assert_eq!(again.of(&model, 5000), 7777);
        let long = ModelConfig { context: Some(9), ..model.clone() };
        assert_eq!(again.of(&long, 1 << 20), 10_000);
        fs::write(&path, [0; 2000]).unwrap();
        assert_eq!(again.of(&model, 1 << 20), 12_500);
        // Folders count with what is in folders in them.
        let hub = folder.path().join("hub");
        fs::create_dir_all(hub.join("onnx")).unwrap();
        fs::write(hub.join("onnx/model.onnx"), [0; 400]).unwrap();
        assert_eq!(again.of(&ModelConfig::new("h", &hub), 1 << 20), 1000);
        // What is broken is not believed.
        fs::write(&state, "{").unwrap();
        assert_eq!(Estimates::read(Some(state), &log).of(&model, 1 << 20), 12_500);
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(budget() > 1 << 20);
    }
}
