//! Files of a model: mapped, checked once opened, and never opened again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ExternalProblem, LoadError, attach::Written};
use crate::fs::{Stamp, links, open_regular};

/// Which external data files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalPolicy {
    /// Links may lead anywhere inside the model's folder or the folder of the real model file
    /// (a Hugging Face cache works).
    #[default]
    Contained,
    /// No links at all, as onnx's own reader.
    Strict,
    /// No external data.
    None,
}

/// The files that a model was read from. Mappings live as long as the tensors in them.
#[derive(Clone)]
pub struct Files {
    pub model: PathBuf,
    folder: PathBuf,
    roots: Vec<PathBuf>,
    policy: ExternalPolicy,
    open: BTreeMap<String, Mapped>,
    /// The graph was built of what they say: no file holds it.
    built: bool,
    /// Weights that were made of theirs, for runtimes that map files.
    pub(super) written: Written,
}

#[derive(Clone)]
struct Mapped {
    path: PathBuf,
    bytes: Bytes,
    /// `None`: in memory.
    stamp: Option<Stamp>,
}

impl Files {
    pub fn new(model: &Path, policy: ExternalPolicy) -> Result<Files, LoadError> {
        let io = |source| LoadError::Io { path: model.into(), source };
        let folder = match model.parent() {
            Some(it) if !it.as_os_str().is_empty() => it.to_owned(),
            _ => PathBuf::from("."),
        };
        let real = fs::canonicalize(model).map_err(io)?;
        let mut roots = vec![fs::canonicalize(&folder).map_err(io)?];
        roots.extend(real.parent().map(Path::to_owned));
        Ok(Files {
            model: model.into(),
            folder,
            roots,
            policy,
            open: BTreeMap::new(),
            built: false,
            written: Written::default(),
        })
    }

    /// Those of a model in memory: `bytes` is what it was read from, empty if it was never encoded.
    /// It can have no external data. `name` stands for its path in messages and metadata.
    pub fn in_memory(name: &Path, bytes: Bytes) -> Files {
        let (model, policy) = (name.to_owned(), ExternalPolicy::None);
        let mapped = Mapped { path: model.clone(), bytes, stamp: None };
        let open = BTreeMap::from([(String::new(), mapped)]);
        let written = Written::default();
        let (folder, roots, built) = (PathBuf::new(), Vec::new(), false);
        Files { model, folder, roots, policy, open, built, written }
    }

    /// Those of a graph that is built of what its files say; `folder` is what users call it.
    pub fn built(mut self, folder: &Path) -> Files {
        self.model = folder.into();
        self.built = true;
        self
    }

    /// Whether a runtime can open the model as it is filed.
    pub fn hold_model(&self) -> bool {
        !self.built && !self.is_in_memory()
    }

    /// Whether no file was read.
    pub fn is_in_memory(&self) -> bool {
        self.open.values().all(|it| it.stamp.is_none())
    }

    /// The model file itself.
    pub fn map_model(&mut self) -> Result<Bytes, LoadError> {
        let io = |source| LoadError::Io { path: self.model.clone(), source };
        let mapped = map(&self.model, true).map_err(io)?;
        let Some(mapped) = mapped else {
            return Err(io(not_a_file()));
        };
        self.open.insert(String::new(), mapped.clone());
        Ok(mapped.bytes)
    }

    /// A data file by the location that a tensor states.
    pub fn map_external(&mut self, location: &str) -> Result<Bytes, ExternalProblem> {
        if let Some(it) = self.open.get(location).filter(|_| !location.is_empty()) {
            return Ok(it.bytes.clone());
        }
        if self.policy == ExternalPolicy::None {
            return Err(ExternalProblem::Refused);
        }
        check_location(location)?;
        let owned = location.to_owned();
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => {
                ExternalProblem::NotFound { location: owned.clone(), folder: self.folder.clone() }
            }
            _ => ExternalProblem::Io { location: owned.clone(), source },
        };
        let path = self.folder.join(location);
        let real = fs::canonicalize(&path).map_err(io)?;
        if !self.roots.iter().any(|it| real.starts_with(it)) {
            return Err(ExternalProblem::Escapes { location: owned });
        }
        // The real path has no links; not following them keeps it so until it is open.
        let Some(mapped) = map(&real, false).map_err(io)? else {
            return Err(ExternalProblem::NotFile { location: owned });
        };
        if self.policy == ExternalPolicy::Strict {
            let links = links(&fs::metadata(&real).map_err(io)?);
            if links > 1 || real != self.roots[0].join(location) {
                return Err(ExternalProblem::Link { location: owned });
            }
        }
        self.open.insert(owned, mapped.clone());
        Ok(mapped.bytes)
    }

    /// Whether any tensor lies outside of the model file, if there is one.
    pub fn has_external(&self) -> bool {
        !self.built && self.open.keys().any(|it| !it.is_empty())
    }

    /// Bytes of the model file and of its data files.
    pub fn size(&self) -> u64 {
        self.open.values().map(|it| it.bytes.len() as u64).sum()
    }

    /// The model file first, then its data files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.open.values().map(|it| &*it.path)
    }

    /// The same with the names that count: as the model states them, without folders.
    pub fn named(&self) -> Vec<(String, PathBuf)> {
        let model = self.model.to_string_lossy();
        let named = self.open.iter().map(|(location, it)| {
            let location = if location.is_empty() { &*model } else { location };
            let name = location.rsplit(['/', '\\']).next().unwrap_or(location);
            (name.to_owned(), it.path.clone())
        });
        named.collect()
    }

    /// The contents of each file, for digests.
    pub fn contents(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.open.iter().map(|(name, it)| (&**name, &it.bytes))
    }

    /// The file and the offset in it where bytes at an address come from, if they do.
    pub(super) fn locate(&self, (address, len): (usize, usize)) -> Option<(&Path, u64)> {
        self.open.values().filter(|it| it.stamp.is_some()).find_map(|it| {
            let offset = address.checked_sub(it.bytes.as_ptr().addr())?;
            let inside = offset.checked_add(len)? <= it.bytes.len();
            inside.then_some((&*it.path, offset as u64))
        })
    }

    /// Whether `path` is one of the data files, whatever it is called.
    pub fn is_data(&self, path: &Path) -> bool {
        let Ok(meta) = fs::metadata(path) else { return false };
        let stamp = Stamp::of(&meta);
        self.open.iter().any(|(name, it)| {
            !name.is_empty() && it.stamp.is_some_and(|it| it.is_same_file(&stamp))
        })
    }

    /// Fails if a file changed since it was opened: what we read from it may be torn.
    pub fn check_unchanged(&self) -> Result<(), LoadError> {
        for it in self.open.values().filter(|it| it.stamp.is_some()) {
            let now = fs::metadata(&it.path).map(|it| Stamp::of(&it));
            if !matches!(now, Ok(now) if Some(now) == it.stamp) {
                return Err(LoadError::Changed { path: it.path.clone() });
            }
        }
        Ok(())
    }
}

/// The contents of any regular file, mapped.
pub fn map_file(path: &Path) -> io::Result<Bytes> {
    let mapped = map(path, true)?;
    Ok(mapped.ok_or_else(not_a_file)?.bytes)
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// `None` if the path is no regular file.
fn map(path: &Path, follow: bool) -> io::Result<Option<Mapped>> {
    let Some((file, meta)) = open_regular(path, follow)? else { return Ok(None) };
    let bytes = crate::fs::map(&file)?;
    Ok(Some(Mapped { path: path.into(), bytes, stamp: Some(Stamp::of(&meta)) }))
}

/// The same names are refused on every platform, so that a model is portable or refused.
fn check_location(location: &str) -> Result<(), ExternalProblem> {
    const RESERVED: &[&str] = &["AUX", "CON", "NUL", "PRN"];
    const NUMBERED: &[&str] = &["COM", "LPT"];
    let refuse = |why| Err(ExternalProblem::Location { location: location.to_owned(), why });
    if location.is_empty() {
        return refuse("is missing");
    }
    if location.len() > 1024 {
        return refuse("is longer than 1024 bytes");
    }
    if location.starts_with(['/', '\\']) {
        return refuse("is absolute");
    }
    if location.contains([':', '*', '\0']) || location.chars().any(char::is_control) {
        return refuse("has characters that no portable path has");
    }
    for part in location.split(['/', '\\']) {
        let stem = part.split('.').next().unwrap_or(part).to_ascii_uppercase();
        if part == ".." {
            return refuse("leads out of the model's folder");
        }
        let numbered = stem.len() == 4 && stem.ends_with(|it: char| it.is_ascii_digit());
        if RESERVED.contains(&&*stem) || numbered && NUMBERED.iter().any(|it| stem.starts_with(it))
        {
            return refuse("is a device name on Windows");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_that_no_portable_model_has_are_refused() {
        for bad in
            ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\x", "C:x", "nul.bin", "d/com1", "a\0b"]
        {
            assert!(check_location(bad).is_err(), "{bad:?}");
        }
        for good in ["w.bin", "sub/w.bin", "./w.bin", "model.onnx_data_1", "..data"] {
            assert!(check_location(good).is_ok(), "{good:?}");
        }
    }
}
