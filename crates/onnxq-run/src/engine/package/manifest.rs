//! `package.json`: which files a package has, and for which library and machine they were packed.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Machine;
use onnxq_ir::{
    digest::{sha256_hex, sha256_of},
    fs::{open_file, read_exact_at},
};

/// The file that says what a package holds.
pub const MANIFEST: &str = "package.json";
/// The folder of a package in which the packed models are.
pub const PREPACKED: &str = "prepacked";
/// The format of [`MANIFEST`].
pub const SCHEMA: &str = "onnxq.package/1";

/// A manifest is no larger.
const LARGEST: u64 = 1 << 20;

/// What a package says of itself. It is data of a stranger until its files were looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: String,
    /// The version that made it.
    pub onnxq: String,
    /// The version of ONNX Runtime that packed the weights.
    pub onnxruntime: String,
    pub machine: Machine,
    pub models: Vec<PackedModel>,
}

/// A model in both forms; of each the graph comes first, then its external data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedModel {
    pub plain: Vec<FileFacts>,
    pub prepacked: Vec<FileFacts>,
}

/// What a file of a package is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Relative to the package, with `/`.
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
    /// Of the size, both ends and places between: it is computed at each load, whatever the size.
    pub sampled_sha256: String,
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot be read: {0}")]
    Io(String),
    #[error("is no manifest of a package: {0}")]
    Json(String),
    #[error("is not of onnxq: it lacks a `schema` that says so")]
    Foreign,
    #[error("is of the format `{0}`, and this version knows `{SCHEMA}`")]
    Schema(String),
    #[error("names `{0}`, which is no place in the package")]
    Path(String),
}

impl Manifest {
    /// That of a folder.
    pub fn read(folder: &Path) -> Result<Manifest, ManifestError> {
        let io = |it: io::Error| ManifestError::Io(it.to_string());
        let file = open_file(&folder.join(MANIFEST)).map_err(io)?;
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text).map_err(io)?;
        let json = |it: serde_json::Error| ManifestError::Json(it.to_string());
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(json)?;
        // Newer formats may differ in any other field.
        match value["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) if other.starts_with("onnxq.package/") => {
                return Err(ManifestError::Schema(other.to_owned()));
            }
            _ => return Err(ManifestError::Foreign),
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(json)?;
        manifest.check_paths()?;
        Ok(manifest)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("it is made of strings and numbers") + "\n"
    }

    /// The model whose plain graph has this place in the package.
    pub fn model(&self, place: &str) -> Option<&PackedModel> {
        self.models.iter().find(|it| it.plain.first().is_some_and(|it| it.path == place))
    }

    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = &FileFacts> {
        self.models.iter().flat_map(|it| it.plain.iter().chain(&it.prepacked))
    }

    fn check_paths(&self) -> Result<(), ManifestError> {
        let empty = self.models.iter().any(|it| it.plain.is_empty() || it.prepacked.is_empty());
        if empty {
            return Err(ManifestError::Json("a model has no files".to_owned()));
        }
        let wrong = |it: &&FileFacts| {
            let mut parts = Path::new(&it.path).components().peekable();
            parts.peek().is_none() || parts.any(|it| !matches!(it, Component::Normal(_)))
        };
        match self.files().find(wrong) {
            Some(it) => Err(ManifestError::Path(it.path.clone())),
            None => Ok(()),
        }
    }
}

impl FileFacts {
    /// Those of a file at a place in the package.
    pub fn of(package: &Path, place: &str) -> io::Result<FileFacts> {
        let file = open_file(&package.join(place))?;
        let sampled_sha256 = sampled(&file)?;
        let (bytes, sha256) = sha256_of(file)?;
        Ok(FileFacts { path: place.to_owned(), bytes, sha256, sampled_sha256 })
    }

    pub fn place(&self, package: &Path) -> PathBuf {
        package.join(&self.path)
    }

    /// What of the file is no longer so, as far as its size tells.
    pub fn resized(&self, package: &Path) -> Option<String> {
        match open_file(&self.place(package)).and_then(|it| it.metadata()) {
            Ok(meta) if meta.len() == self.bytes => None,
            Ok(meta) => Some(format!("has {} bytes instead of {}", meta.len(), self.bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        }
    }

    /// The same, as far as samples of its bytes tell.
    pub fn altered(&self, package: &Path) -> Option<String> {
        match open_file(&self.place(package)).and_then(|it| sampled(&it)) {
            Ok(digest) if digest == self.sampled_sha256 => None,
            Ok(_) => Some("holds something else".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        }
    }
}

/// Bytes of each end of a file that count.
const END: u64 = 256 << 10;
/// Places between, and bytes of each.
const PLACES: u64 = 64;
const PLACE: u64 = 4 << 10;

/// A digest that takes as long for any file: another export of a model, or one with other weights,
/// has another one. It is no proof against somebody who wants it equal.
fn sampled(file: &File) -> io::Result<String> {
    let size = file.metadata()?.len();
    let mut bytes = size.to_le_bytes().to_vec();
    let mut take = |at: u64, count: u64| -> io::Result<()> {
        let start = bytes.len();
        bytes.resize(start + count as usize, 0);
        read_exact_at(file, &mut bytes[start..], at)
    };
    if size <= 2 * END + PLACES * PLACE {
        take(0, size)?;
    } else {
        take(0, END)?;
        let step = (size - 2 * END - PLACE) / (PLACES - 1);
        for place in 0..PLACES {
            take(END + place * step, PLACE)?;
        }
        take(size - END, END)?;
    }
    Ok(sha256_hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn facts(path: &str) -> FileFacts {
        let (sha256, sampled_sha256) = (String::new(), String::new());
        FileFacts { path: path.to_owned(), bytes: 1, sha256, sampled_sha256 }
    }

    fn manifest(path: &str) -> Manifest {
        Manifest {
            schema: SCHEMA.to_owned(),
            onnxq: "1".to_owned(),
            onnxruntime: "1.32.0".to_owned(),
            machine: Machine::of_process(),
            models: vec![PackedModel {
                plain: vec![facts(path)],
                prepacked: vec![facts("p/m.onnx")],
            }],
        }
    }

    fn read(text: &str) -> Result<Manifest, ManifestError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), text).unwrap();
        Manifest::read(folder.path())
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let own = manifest("onnx/m.onnx");
        assert_eq!(read(&own.text()).unwrap(), own);
        assert!(own.model("onnx/m.onnx").is_some() && own.model("m.onnx").is_none());
    }

    #[test]
    fn what_is_no_manifest_is_told_apart() {
        // npm has a file of that name.
        assert_eq!(read(r#"{"name": "page", "version": "1.0.0"}"#), Err(ManifestError::Foreign));
        assert_eq!(read("[]"), Err(ManifestError::Foreign));
        assert!(matches!(read("{"), Err(ManifestError::Json(_))));
        let newer = r#"{"schema": "onnxq.package/2"}"#;
        assert_eq!(read(newer), Err(ManifestError::Schema("onnxq.package/2".to_owned())));
        for place in ["/etc/passwd", "../m.onnx", "a/../../m.onnx", ""] {
            assert_eq!(read(&manifest(place).text()), Err(ManifestError::Path(place.to_owned())));
        }
        let without = Manifest {
            models: vec![PackedModel { plain: vec![], prepacked: vec![] }],
            ..manifest("m")
        };
        assert!(matches!(read(&without.text()), Err(ManifestError::Json(_))));
        let none = tempfile::tempdir().unwrap();
        assert!(matches!(Manifest::read(none.path()), Err(ManifestError::Io(_))));
    }

    #[test]
    fn a_change_is_seen_at_once_whatever_the_size() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, 700_000, 3_000_000] {
            let path = folder.path().join("f");
            fs::write(&path, vec![1; size]).unwrap();
            let facts = FileFacts::of(folder.path(), "f").unwrap();
            assert_eq!(facts.bytes, size as u64);
            assert_eq!((facts.resized(folder.path()), facts.altered(folder.path())), (None, None));
            fs::write(&path, vec![2; size]).unwrap();
            assert_eq!(facts.resized(folder.path()), None);
            assert_eq!(facts.altered(folder.path()).is_some(), size > 0);
            fs::write(&path, vec![1; size + 1]).unwrap();
            assert!(facts.resized(folder.path()).unwrap().ends_with(&size.to_string()));
            fs::remove_file(&path).unwrap();
            assert_eq!(facts.resized(folder.path()).unwrap(), "is missing");
        }
    }
}
