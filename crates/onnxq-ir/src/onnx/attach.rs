//! A model for a runtime in this process: its graph encoded, its weights left where they are.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tempfile::NamedTempFile;

use super::{
    Files, SaveError,
    external::{Extent, Layout, fill, weights},
    save,
};
use crate::{
    ctx::Ctx,
    fs::{mark_in_use, remove_leftovers},
    ir::{Model, ValueId},
    tensor::{Identity, Tensor},
};

/// A runtime checks and folds small constants while it loads, so those stay in the graph.
const INLINE_BELOW: usize = 4 << 10;
/// Of temporary files.
const PREFIX: &str = "onnxq-";
/// Kernels read whole vectors.
const ALIGNMENT: u64 = 64;

/// An encoded graph whose large weights are external data under the root folder.
pub struct Attached {
    pub graph: Vec<u8>,
    /// Weights that lie in no file of the model. Sessions may outlive them: they have mapped them.
    _scratch: Vec<Arc<NamedTempFile>>,
}

impl Attached {
    /// The folder that the locations of external data begin at.
    pub fn folder() -> &'static Path {
        Path::new("/")
    }
}

/// Encodes `model` for a runtime that maps external data.
///
/// Weights that are slices of `files` are stated by file and offset; others go to a temporary file,
/// one piece at a time: what a transform or a solver made stays there for the next call with these
/// files, what is computed whenever it is read is written for this one.
pub fn attach(model: &Model, files: &Files) -> Result<Attached, SaveError> {
    let mut names = Names::default();
    let mut places = BTreeMap::new();
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for (value, tensor) in weights(model, false) {
        if tensor.nbytes() < INLINE_BELOW {
            continue;
        }
        match in_place(tensor, files).and_then(|(path, at)| Some((names.of(path)?, at))) {
            Some(place) => drop(places.insert(value, place)),
            None if tensor.identity().is_some() => shared.push((value, tensor)),
            None => own.push((value, tensor)),
        }
    }
    let mut scratch = Vec::new();
    for (written, weights) in [(&files.written, shared), (&Written::default(), own)] {
        if weights.is_empty() {
            continue;
        }
        let (file, offsets) = written.write(model, &weights)?;
        let name = names.of(file.path()).ok_or_else(unspeakable)?;
        places.extend(weights.iter().zip(offsets).map(|(it, offset)| (it.0, (name, offset))));
        scratch.push(file);
    }
    let graph = save::to_bytes(model, &Layout::scattered(names.list, places))?;
    Ok(Attached { graph, _scratch: scratch })
}

/// Weights in a temporary file, each written once however many models have it.
#[derive(Clone, Default)]
pub(super) struct Written {
    scratch: Arc<Mutex<Scratch>>,
}

/// What was written, and where.
#[derive(Default)]
struct Scratch {
    file: Option<Arc<NamedTempFile>>,
    end: u64,
    known: HashMap<Identity, u64>,
    /// Identities are of living tensors.
    alive: Vec<Tensor>,
}

impl Written {
    /// Writes what is not known yet; where each weight lies.
    fn write(
        &self,
        model: &Model,
        weights: &[(ValueId, &Tensor)],
    ) -> Result<(Arc<NamedTempFile>, Vec<u64>), SaveError> {
        let mut scratch = self.lock();
        let file = scratch.file()?;
        let mut offsets = Vec::with_capacity(weights.len());
        let mut new: Vec<Extent> = Vec::new();
        let mut seen: HashMap<Identity, u64> = HashMap::new();
        for &(value, tensor) in weights {
            let identity = tensor.identity();
            let known = identity.as_ref().and_then(|it| scratch.known.get(it).or(seen.get(it)));
            let offset = known.copied().unwrap_or_else(|| {
                let offset = scratch.end.next_multiple_of(ALIGNMENT);
                scratch.end = offset + tensor.nbytes() as u64;
                new.push(Extent { name: &model.value(value).name, tensor, offset });
                offset
            });
            seen.extend(identity.map(|it| (it, offset)));
            offsets.push(offset);
        }
        file.as_file().set_len(scratch.end).map_err(io_error)?;
        // Written without the lock: who waits for it may be who has a part of the work. Two threads
        // may then write one weight to two places, which costs time and nothing else.
        drop(scratch);
        // Progress is the caller's: this is a part of its step.
        fill(file.as_file(), &new, &Ctx::silent()).map_err(|err| err.at(file.path()))?;
        let mut scratch = self.lock();
        for it in new {
            if let Some(identity) = it.tensor.identity() {
                scratch.known.insert(identity, it.offset);
                scratch.alive.push(it.tensor.clone());
            }
        }
        Ok((file, offsets))
    }

    fn lock(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scratch {
    fn file(&mut self) -> Result<Arc<NamedTempFile>, SaveError> {
        if let Some(it) = &self.file {
            return Ok(it.clone());
        }
        // A run that is killed cannot remove its file, so the next one does.
        let folder = std::env::temp_dir();
        remove_leftovers(&folder, PREFIX);
        let temp = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder).map_err(io_error)?;
        mark_in_use(temp.as_file());
        let temp = Arc::new(temp);
        self.file = Some(temp.clone());
        Ok(temp)
    }
}

fn io_error(source: io::Error) -> SaveError {
    SaveError::Io { path: std::env::temp_dir(), source }
}

fn unspeakable() -> SaveError {
    io_error(io::Error::other("the path is not UTF-8"))
}

fn in_place<'a>(tensor: &Tensor, files: &'a Files) -> Option<(&'a Path, u64)> {
    let place = tensor.place().filter(|_| !tensor.is_transposed())?;
    let (path, offset) = files.locate(place)?;
    // Protobuf puts bytes anywhere; a mapping of them would hold floats at odd addresses.
    let natural = (tensor.dtype.bits() / 8).max(1) as u64;
    offset.is_multiple_of(natural).then_some((path, offset))
}

/// Paths relative to the root, each once.
#[derive(Default)]
struct Names {
    list: Vec<String>,
}

impl Names {
    /// `None` if no string can say it.
    fn of(&mut self, path: &Path) -> Option<usize> {
        let real = fs::canonicalize(path).ok()?;
        let name = real.strip_prefix(Attached::folder()).ok()?.to_str()?;
        let known = self.list.iter().position(|it| it == name);
        Some(known.unwrap_or_else(|| {
            self.list.push(name.to_owned());
            self.list.len() - 1
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tensor::DType, text};

    fn length(files: &Files) -> u64 {
        let scratch = files.written.lock();
        scratch.file.as_ref().map_or(0, |it| it.as_file().metadata().unwrap().len())
    }

    #[test]
    fn what_models_have_in_common_is_written_once() {
        let files = Files::in_memory(Path::new("m"), bytes::Bytes::new());
        let m = text::parse(
            "<ir_version: 8, opset_import: [\"\" : 17]>
            main (float[n,64] x) => (float[n,64] y) <float[64,64] w> { y = MatMul (x, w) }",
        );
        let mut m = m.unwrap();
        let node = m.nodes()[0];
        let weight = Tensor::from_f32(&[64, 64], (0..4096).map(|it| it as f32));
        let of = |m: &mut Model, tensor: &Tensor| {
            let value = m.add_constant(m.main, "v", tensor.clone());
            m.set_input(node, 1, Some(value));
            m.remove_all_dead();
            attach(m, &files).unwrap()
        };
        let first = of(&mut m, &weight);
        let (once, graph) = (length(&files), first.graph.len());
        assert!(once >= 4 * 4096 && graph < 4096, "{once} {graph}");
        of(&mut m, &weight);
        assert_eq!(length(&files), once);
        of(&mut m, &weight.transposed());
        assert_eq!(length(&files), 2 * once);
        // What is computed at each read is nobody else's.
        let bytes = weight.bytes().unwrap();
        of(&mut m, &Tensor::lazy(DType::F32, vec![64, 64], move || Ok(bytes.clone())));
        assert_eq!(length(&files), 2 * once);
    }
}
