//! Temporary files that a killed run left behind.

use std::{fs::File, path::Path};

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
    // Long enough for any other process to mark what it has just made.
    const AGE: std::time::Duration = std::time::Duration::from_secs(600);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let named = |it: &std::fs::DirEntry| it.file_name().to_string_lossy().starts_with(prefix);
    for entry in entries.flatten().filter(named) {
        let is_old = |it: std::fs::Metadata| {
            it.is_file() && it.modified().is_ok_and(|it| it.elapsed().is_ok_and(|it| it > AGE))
        };
        if !entry.metadata().is_ok_and(is_old) {
            continue;
        }
        let free = File::open(entry.path()).is_ok_and(|it| it.try_lock().is_ok());
        if free {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Locks keep others from reading a file here, so nothing is marked.
#[cfg(not(unix))]
pub fn mark_in_use(_: &File) {}

/// Nothing tells which files are in use.
#[cfg(not(unix))]
pub fn remove_leftovers(_: &Path, _: &str) {}

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
}
