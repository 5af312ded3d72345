//! Writing a model: laid out, streamed to temporary siblings, then renamed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use prost::Message;

use super::{
    Files, SaveError,
    external::{Extent, Layout, fill, weights},
    parts::{Parts, extent},
    write::Writer,
};
use crate::{
    ctx::Ctx,
    fs::{Replacement, available_space, lock_folder},
    ir::Model,
};

/// Beyond this, weights move to a data file by themselves.
const EXTERNAL_FROM: u64 = 3 << 29;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// If the input had external data, or the model is larger than 1.5 GiB.
    #[default]
    Auto,
    Always,
    Never,
    /// Always, in files of at most so many bytes.
    Shards(u64),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions {
    pub external: ExternalData,
    pub force: bool,
    pub ending: DataEnding,
}

/// What follows the model's name in the names of its data files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataEnding {
    /// `.data`, as ONNX's own tools write.
    #[default]
    Dot,
    /// `_data`, as optimum writes and transformers.js looks for.
    Underscore,
}

impl SaveOptions {
    /// Whether something at `path` stands in the way.
    pub fn check_free(&self, path: &Path) -> Result<(), SaveError> {
        // A link to nothing is something too.
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(SaveError::Exists { path: path.into() });
        }
        Ok(())
    }
}

/// Whether a file can be made at a path: its folder is there, and no folder, pipe or device lies at
/// the path itself, which a file would replace.
pub fn check_place(path: &Path) -> Result<(), SaveError> {
    match path.metadata() {
        Ok(it) if it.is_dir() => return Err(SaveError::IsFolder { path: path.into() }),
        Ok(it) if !it.is_file() => return Err(SaveError::NotRegular { path: path.into() }),
        _ => {}
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(SaveError::NoFolder { folder: folder.into() })
        }
        _ => Ok(()),
    }
}

/// The files that were written.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Path and size; the model first, then its data files if it has any.
    pub files: Vec<(PathBuf, u64)>,
}

impl Saved {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|it| it.1).sum()
    }
}

/// Writes `model` to `path`, and large weights beside it if need be: to `path` + `.data`, and to
/// `.data_1`, `.data_2` and so on if there are limits to what a file may hold.
///
/// Nothing exists at the destination until everything was written; weights that were only
/// planned are computed here, one at a time. `input` are the files the model was read from:
/// writing over the model is fine, writing over its data file is not.
pub fn save(
    model: &Model,
    path: &Path,
    options: &SaveOptions,
    input: Option<&Files>,
    ctx: &Ctx,
) -> Result<Saved, SaveError> {
    let layout = layout(model, path, options, input);
    let data: Vec<PathBuf> = layout.files.iter().map(|it| path.with_file_name(&it.name)).collect();
    let parts = Parts::new(model, &layout)?;
    check_files(path, &data, options, input)?;
    let needed = parts.total + layout.external_bytes();
    check_space(path, needed)?;
    ctx.progress.start("write", needed);
    let mut saved = vec![(path.to_owned(), parts.total)];
    let mut external = Vec::new();
    for (index, path) in data.into_iter().enumerate() {
        let data = replacement(&path)?;
        fill_external(model, &layout, index, data.file(), &path, ctx)?;
        saved.push((path.clone(), layout.files[index].bytes));
        external.push((data, path));
    }
    let graph = replacement(path)?;
    parts.write(model, graph.file(), path, ctx)?;
    if let Some(files) = input {
        files.check_unchanged().map_err(|err| SaveError::Io {
            path: files.model.clone(),
            source: io::Error::other(err.to_string()),
        })?;
    }
    // Another run's data must not meet this graph, and what has come meanwhile stays unless forced.
    let _alone =
        lock_folder(folder(path)).map_err(|source| SaveError::Io { path: path.into(), source })?;
    let data: Vec<PathBuf> = external.iter().map(|it| it.1.clone()).collect();
    check_files(path, &data, options, input)?;
    // The old graph must never meet the new data: without a graph there is nothing to load.
    if !external.is_empty() {
        remove_old(path)?;
    }
    for (data, path) in external {
        persist(data, &path)?;
    }
    persist(graph, path)?;
    ctx.progress.done(&path.display().to_string());
    Ok(Saved { files: saved })
}

/// Sizes that `save` would write, of the model file and of its data, without computing.
pub fn layout_sizes(
    model: &Model,
    path: &Path,
    options: &SaveOptions,
    input: Option<&Files>,
) -> Result<(u64, u64), SaveError> {
    let layout = layout(model, path, options, input);
    let parts = Parts::new(model, &layout)?;
    Ok((parts.total, layout.external_bytes()))
}

pub(super) fn to_bytes(model: &Model, layout: &Layout) -> Result<Vec<u8>, SaveError> {
    let mut proto = Writer::new(model, layout).model()?;
    proto.graph.get_or_insert_default();
    // Here all weights were computed.
    if let Some(late) = &model.late {
        let entry = proto.metadata_props.iter_mut().find(|it| it.key.as_ref() == Some(&late.key));
        let value = entry.and_then(|it| it.value.as_mut());
        if let Some(value) = value {
            *value = late.instead_of(value).unwrap_or_else(|| value.clone());
        }
    }
    let mut bytes = proto.encode_to_vec();
    bytes.extend_from_slice(&model.kept.unknown);
    Ok(bytes)
}

/// Whether `save` puts large weights into a data file.
pub fn is_external(model: &Model, options: &SaveOptions, input: Option<&Files>) -> bool {
    match options.external {
        ExternalData::Always | ExternalData::Shards(_) => true,
        ExternalData::Never => false,
        ExternalData::Auto => {
            let bytes: u64 = weights(model, false).iter().map(|it| it.1.nbytes() as u64).sum();
            bytes > EXTERNAL_FROM || input.is_some_and(Files::has_external)
        }
    }
}

fn layout(model: &Model, path: &Path, options: &SaveOptions, input: Option<&Files>) -> Layout {
    if !is_external(model, options, input) {
        return Layout::inline(model);
    }
    let ending = match options.ending {
        DataEnding::Dot => ".data",
        DataEnding::Underscore => "_data",
    };
    let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ending;
    let name = |index: usize| match index {
        0 => stem.clone(),
        _ => format!("{stem}_{index}"),
    };
    let limit = match options.external {
        ExternalData::Shards(limit) => limit,
        _ => u64::MAX,
    };
    Layout::external(model, name, limit)
}

fn fill_external(
    model: &Model,
    layout: &Layout,
    index: usize,
    file: &File,
    path: &Path,
    ctx: &Ctx,
) -> Result<(), SaveError> {
    let io = |source| SaveError::Io { path: path.into(), source };
    file.set_len(layout.files[index].bytes).map_err(io)?;
    let mut places = layout.of_file(index);
    places.sort_by_key(|it| it.1);
    // Tensors of the same bytes share a place, which is filled once.
    places.dedup_by_key(|it| it.1);
    let extents: Vec<Extent> =
        places.into_iter().map(|(value, offset)| extent(model, value, offset)).collect();
    fill(file, &extents, ctx).map_err(|err| err.at(path))
}

/// Whether the files that [`save`] would write may lie at `path` and beside it.
pub fn check_destination(
    model: &Model,
    path: &Path,
    options: &SaveOptions,
    input: Option<&Files>,
) -> Result<(), SaveError> {
    let layout = layout(model, path, options, input);
    let data: Vec<PathBuf> = layout.files.iter().map(|it| path.with_file_name(&it.name)).collect();
    check_files(path, &data, options, input)
}

fn check_files(
    path: &Path,
    data: &[PathBuf],
    options: &SaveOptions,
    input: Option<&Files>,
) -> Result<(), SaveError> {
    for path in std::iter::once(path).chain(data.iter().map(PathBuf::as_path)) {
        if input.is_some_and(|it| it.is_data(path)) {
            return Err(SaveError::InputData { path: path.into() });
        }
        check_place(path)?;
        options.check_free(path)?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => Path::new("."),
    }
}

/// Refuses before any work what certainly cannot end well.
fn check_space(path: &Path, needed: u64) -> Result<(), SaveError> {
    match available_space(folder(path)) {
        Some(available) if needed > available => {
            Err(SaveError::NoSpace { path: path.into(), needed, available })
        }
        _ => Ok(()),
    }
}

fn replacement(path: &Path) -> Result<Replacement, SaveError> {
    Replacement::of(path).map_err(|source| SaveError::Io { path: path.into(), source })
}

fn persist(file: Replacement, path: &Path) -> Result<(), SaveError> {
    file.persist().map_err(|source| SaveError::Io { path: path.into(), source })
}

fn remove_old(path: &Path) -> Result<(), SaveError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SaveError::Io { path: path.into(), source })
        }
        _ => Ok(()),
    }
}
