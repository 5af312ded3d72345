//! What is packaged: where models lie in a folder, and the files of each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{PackageError, Packing};
use crate::{
    Error,
    import::folder::Folder,
    staged::{failed, parent},
};
use onnxq_ir::onnx;
use onnxq_run::engine::package::{MANIFEST, PREPACKED};

/// The folder in which repositories keep models.
const ONNX: &str = "onnx";

/// Models of a folder.
pub(super) struct Sources {
    pub root: PathBuf,
    /// Their graphs, relative to the root, with `/`, in alphabetical order.
    pub models: Vec<String>,
    /// One file of a folder was asked for: nothing is said of the others.
    is_file: bool,
}

impl Sources {
    /// A model file with what lies beside it, or all models of a folder.
    pub(super) fn of(model: &Path) -> Result<Sources, Error> {
        if model.is_dir() {
            let (root, mut models) = (model.to_owned(), graphs(model, "")?);
            let inner = root.join(ONNX);
            if inner.is_dir() {
                models.extend(graphs(&inner, "onnx/")?);
            }
            if models.is_empty() {
                return Err(PackageError::NoModel(root).into());
            }
            return Ok(Sources { root, models, is_file: false });
        }
        let name = model.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        if !is_graph(name) {
            return Err(PackageError::NotOnnx(model.to_owned()).into());
        }
        let folder = parent(model);
        let has_config = |it: &Path| it.join("config.json").is_file();
        let is_inner = folder.file_name().is_some_and(|it| it == ONNX)
            && !has_config(folder)
            && folder.parent().is_some_and(has_config);
        let (root, place) = match folder.parent().filter(|_| is_inner) {
            Some(_) => (parent(folder), format!("{ONNX}/{name}")),
            None => (folder, name.to_owned()),
        };
        Ok(Sources { root: root.to_owned(), models: vec![place], is_file: true })
    }

    /// Copies a model with its external data. Their places, the graph's first.
    pub(super) fn copy(
        &self,
        place: &str,
        folder: &mut Folder,
        how: &Packing,
    ) -> Result<Vec<String>, Error> {
        let places = files_of(&self.root, place, how)?;
        for place in &places {
            let to = folder.path(place)?;
            // Two graphs may share their data.
            if !to.exists() {
                let from = self.root.join(place);
                fs::copy(&from, &to).map_err(failed(&from))?;
            }
        }
        Ok(places)
    }

    /// Files that are not in the result, in alphabetical order.
    pub(super) fn left(&self, result: &Path) -> Vec<String> {
        if self.is_file {
            return Vec::new();
        }
        let names = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
            let names = entries.map(|it| it.file_name().to_string_lossy().into_owned());
            names.map(|it| format!("{folder}{it}")).collect()
        };
        let mut all = names("");
        all.extend(names("onnx/"));
        let is_ours = |it: &str| it == MANIFEST || it == PREPACKED;
        all.retain(|it| !result.join(it).exists() && !is_ours(it));
        all.sort();
        all
    }
}

/// The files of a model of a folder, the graph first. The names are those that the model states.
pub(super) fn files_of(root: &Path, place: &str, how: &Packing) -> Result<Vec<String>, Error> {
    let loaded = onnx::open(&root.join(place), &how.open)?;
    let folder = place.rsplit_once('/').map_or(String::new(), |it| format!("{}/", it.0));
    let data = loaded.files.contents().map(|it| it.0).filter(|it| !it.is_empty());
    let data = data.map(|it| format!("{folder}{}", it.replace('\\', "/")));
    Ok([place.to_owned()].into_iter().chain(data).collect())
}

fn is_graph(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == "onnx")
}

fn graphs(folder: &Path, prefix: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_graph(&name) && entry.path().is_file() {
            names.push(format!("{prefix}{name}"));
        }
    }
    names.sort();
    Ok(names)
}
