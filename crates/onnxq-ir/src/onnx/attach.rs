//! A model for a runtime in this process: its graph encoded, its weights left where they are.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{
    Files, SaveError,
    external::{Extent, Fill, Layout, fill, weights},
    save,
};
use crate::{
    ctx::Ctx,
    fs::write_all_at,
    ir::{Model, ValueId},
    tensor::{DType, Tensor, from_f32},
};

/// A runtime checks and folds small constants while it loads, so those stay in the graph.
const INLINE_BELOW: usize = 4 << 10;
/// Bytes of a transposed weight that are made at a time.
const PIECE: usize = 4 << 20;
/// Kernels read whole vectors.
const ALIGNMENT: u64 = 64;

/// An encoded graph whose large weights are external data under the root folder.
pub struct Attached {
    pub graph: Vec<u8>,
    /// Weights that lie in no file of the model. Sessions may outlive it: they have mapped it.
    _scratch: Option<NamedTempFile>,
}

impl Attached {
    /// The folder that the locations of external data begin at.
    pub fn folder() -> &'static Path {
        Path::new("/")
    }
}

/// Encodes `model` for a runtime that maps external data.
///
/// Weights that are slices of `files` are stated by file and offset; others (views, replaced
/// weights) go to a temporary file, one piece at a time.
pub fn attach(model: &Model, files: &Files) -> Result<Attached, SaveError> {
    let mut names = Names::default();
    let mut places = BTreeMap::new();
    let mut others: Vec<(ValueId, &Tensor)> = Vec::new();
    for (value, tensor) in weights(model, false) {
        if tensor.nbytes() < INLINE_BELOW {
            continue;
        }
        match in_place(tensor, files).and_then(|(path, at)| Some((names.of(path)?, at))) {
            Some(place) => drop(places.insert(value, place)),
            None => others.push((value, tensor)),
        }
    }
    let scratch = match others.is_empty() {
        true => None,
        false => Some(write_scratch(model, &others, &mut names, &mut places)?),
    };
    let graph = save::to_bytes(model, &Layout::scattered(names.list, places))?;
    Ok(Attached { graph, _scratch: scratch })
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

fn write_scratch(
    model: &Model,
    weights: &[(ValueId, &Tensor)],
    names: &mut Names,
    places: &mut BTreeMap<ValueId, (usize, u64)>,
) -> Result<NamedTempFile, SaveError> {
    let folder = std::env::temp_dir();
    let io = |source| SaveError::Io { path: folder.clone(), source };
    let temp = tempfile::Builder::new().prefix("onnxq-").tempfile_in(&folder).map_err(io)?;
    let unspeakable = || io(std::io::Error::other("the path is not UTF-8"));
    let name = names.of(temp.path()).ok_or_else(unspeakable)?;
    let mut end = 0u64;
    let (mut views, mut extents) = (Vec::new(), Vec::new());
    for &(value, tensor) in weights {
        let offset = end.next_multiple_of(ALIGNMENT);
        end = offset + tensor.nbytes() as u64;
        places.insert(value, (name, offset));
        let extent = Extent { name: &model.value(value).name, tensor, offset };
        if is_view(tensor) { views.push(extent) } else { extents.push(extent) }
    }
    temp.as_file().set_len(end).map_err(io)?;
    let filled = views.iter().try_for_each(|it| write_view(temp.as_file(), it));
    // Progress is the caller's: this is a part of its step.
    filled
        .and_then(|()| fill(temp.as_file(), &extents, &Ctx::silent()))
        .map_err(|err| err.at(temp.path()))?;
    Ok(temp)
}

/// A matrix whose rows are columns of another one: made in pieces.
fn is_view(tensor: &Tensor) -> bool {
    let exact = matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16);
    tensor.is_transposed() && exact
}

fn write_view(file: &File, extent: &Extent) -> Result<(), Fill> {
    let failed = |source| Fill::Tensor { name: extent.name.to_owned(), source };
    // What is computed when it is read is read once, not for each piece.
    let base = extent.tensor.transposed();
    let bytes = base.bytes().map_err(failed)?;
    let tensor = Tensor::new(base.dtype, base.shape, bytes).transposed();
    let (count, width) = (tensor.shape[0], tensor.nbytes() / tensor.shape[0].max(1));
    let step = (PIECE / width.max(1)).max(1);
    for start in (0..count).step_by(step) {
        let rows = start..(start + step).min(count);
        let values = tensor.rows_f32(rows).map_err(failed)?;
        let bytes = from_f32(tensor.dtype, &values).map_err(failed)?;
        write_all_at(file, &bytes, extent.offset + (start * width) as u64).map_err(Fill::Io)?;
    }
    Ok(())
}
