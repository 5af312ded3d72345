//! Temporary files and folders that a killed run left behind.

use std::{
    fs::{self, File},
    path::Path,
};

/// A file that is locked is in use; the lock goes with its process. Where a file system has no locks,
/// the file's age alone protects it.
#[cfg(unix)]
pub fn mark_in_use(file: &File) {
    let _ = file.try_lock_shared();
}

/// Removes files of the folder whose names begin with `prefix`, if they are a while old and nobody
/// has marked them. What cannot be removed stays.
#[cfg(unix)]
pub fn remove_leftovers(folder: &Path, prefix: &str) {
    for entry in unused(folder, prefix) {
        if entry.metadata().is_ok_and(|it| it.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The same of folders, with all that is in them.
#[cfg(unix)]
pub fn remove_old_folders(folder: &Path, prefix: &str) {
    for entry in unused(folder, prefix) {
        if entry.metadata().is_ok_and(|it| it.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What begins with `prefix`, is old and has no mark. A link is never followed.
#[cfg(unix)]
fn unused(folder: &Path, prefix: &str) -> Vec<fs::DirEntry> {
    // Long enough for any other process to mark what it has just made.
    const AGE: std::time::Duration = std::time::Duration::from_secs(600);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_named = |it: &fs::DirEntry| it.file_name().to_string_lossy().starts_with(prefix);
    let is_old = |it: &fs::DirEntry| {
        let meta = it.metadata().ok().filter(|it| it.is_file() || it.is_dir());
        let age = meta.and_then(|it| it.modified().ok()?.elapsed().ok());
        age.is_some_and(|it| it > AGE)
    };
    let is_free = |it: &fs::DirEntry| File::open(it.path()).is_ok_and(|it| it.try_lock().is_ok());
    entries.flatten().filter(|it| is_named(it) && is_old(it) && is_free(it)).collect()
}

/// Locks keep others from reading a file here, so nothing is marked.
#[cfg(not(unix))]
pub fn mark_in_use(_: &File) {}

/// Nothing tells which files are in use.
#[cfg(not(unix))]
pub fn remove_leftovers(_: &Path, _: &str) {}

#[cfg(not(unix))]
pub fn remove_old_folders(_: &Path, _: &str) {}

#[cfg(all(test, unix))]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_nobody_uses_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, age: u64| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            file
        };
        drop(put("onnxq-left", 3600));
        drop(put("onnxq-new", 0));
        drop(put("other", 3600));
        let used = put("onnxq-used", 3600);
        mark_in_use(&used);
        remove_leftovers(folder.path(), "onnxq-");
        let is_there = |name: &str| folder.path().join(name).exists();
        let there = ["onnxq-left", "onnxq-new", "onnxq-used", "other"].map(is_there);
        assert_eq!(there, [false, true, true, true]);
    }

    #[test]
    fn folders_go_with_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("weights"), "half").unwrap();
            let file = File::open(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
            file
        };
        drop(put("onnxq-left"));
        drop(put("other"));
        let used = put("onnxq-used");
        mark_in_use(&used);
        remove_leftovers(folder.path(), "onnxq-");
        assert!(folder.path().join("onnxq-left").exists());
        remove_old_folders(folder.path(), "onnxq-");
        let is_there = |name: &str| folder.path().join(name).exists();
        assert_eq!(["onnxq-left", "onnxq-used", "other"].map(is_there), [false, true, true]);
    }
}
