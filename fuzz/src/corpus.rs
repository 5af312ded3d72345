//! Inputs to start from, out of the repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Longer inputs are neither read nor made: they are slow and find nothing more.
pub const LONGEST: usize = 48 << 10;

/// The top of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the repository")
}

/// The models of the filetests, with the comments before them.
pub fn filetests() -> Vec<String> {
    let mut paths = Vec::new();
    collect(&root().join("tests/filetests"), &mut paths);
    paths.retain(|it| it.extension().is_some_and(|it| it == "onnxtxt"));
    let texts = paths.iter().filter_map(|it| fs::read_to_string(it).ok());
    let models = texts.map(|it| it.split("# ----\n").next().unwrap_or_default().to_owned());
    models.filter(|it| it.len() <= LONGEST).collect()
}

/// The contents of the files below a folder of the repository, in the order of their names.
pub fn files(folder: &str) -> Vec<Vec<u8>> {
    read(&self::folder(folder))
}

/// A folder of the repository.
pub fn folder(path: &str) -> PathBuf {
    root().join(path)
}

/// The same of any folder.
pub fn read(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    collect(folder, &mut paths);
    let contents = paths.iter().filter_map(|it| fs::read(it).ok());
    contents.filter(|it| it.len() <= LONGEST).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|it| it.path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else {
            paths.push(path);
        }
    }
    paths.sort();
}
