//! Whether every byte of a package is what it was when it was made, and whether it fits this machine.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::PackageError;
use crate::Error;
use onnxq_ir::onnx;
use onnxq_run::engine::{
    Runtime, SessionOptions,
    package::{FileFacts, Machine, Manifest, choose},
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    pub schema: &'static str,
    pub onnxq: &'static str,
    pub folder: PathBuf,
    pub onnxruntime: String,
    pub machine: Machine,
    pub files: Vec<CheckedFile>,
    /// Why the packed forms are not used here.
    pub not_used: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct CheckedFile {
    pub path: String,
    pub bytes: u64,
    /// `None`: it is what it was.
    pub changed: Option<String>,
}

impl Checked {
    /// E631 if a file changed.
    pub fn judge(&self) -> Result<(), Error> {
        let count = self.files.iter().filter(|it| it.changed.is_some()).count();
        let changed = if count == 1 { "is" } else { "are" };
        match count {
            0 => Ok(()),
            _ => Err(PackageError::Changed { folder: self.folder.clone(), count, changed }.into()),
        }
    }
}

/// Reads every file of a package.
///
/// # Errors
/// E631 if the folder is no package.
pub fn check(folder: &Path, runtime: &Runtime) -> Result<Checked, Error> {
    let manifest = Manifest::read(folder).map_err(|reason| {
        let (folder, reason) = (folder.to_owned(), reason.to_string());
        PackageError::NoPackage { folder, reason }
    })?;
    let file = |it: &FileFacts| CheckedFile {
        path: it.path.clone(),
        bytes: it.bytes,
        changed: it.resized(folder).or_else(|| differs(it, folder)),
    };
    let options = SessionOptions::default();
    let reason = |plain: &FileFacts| {
        let choice = choose(&plain.place(folder), runtime, &options);
        choice.not_used.map(|it| it.to_string())
    };
    let mut not_used: Vec<String> =
        manifest.models.iter().filter_map(|it| reason(&it.plain[0])).collect();
    not_used.dedup();
    Ok(Checked {
        schema: "onnxq.package-check/1",
        onnxq: env!("CARGO_PKG_VERSION"),
        folder: folder.to_owned(),
        files: manifest.files().map(file).collect(),
        onnxruntime: manifest.onnxruntime,
        machine: manifest.machine,
        not_used,
    })
}

fn differs(facts: &FileFacts, folder: &Path) -> Option<String> {
    match onnx::sha256(&facts.place(folder)) {
        Ok((_, digest)) if digest == facts.sha256 => None,
        Ok(_) => Some("holds something else".to_owned()),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}
