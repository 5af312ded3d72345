//! SHA-256 of the files of a model: streamed, so that memory stays small, several at a time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{Files, LoadError};
use crate::digest::{sha256_hex, sha256_of};

/// A file and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// Without folders.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// More readers than this only wait for the disk.
const READERS: usize = 4;

/// The files that a model was read from, the model itself first.
pub fn digests(files: &Files) -> Result<Vec<FileDigest>, LoadError> {
    match in_memory(files) {
        Some(digest) => Ok(vec![digest]),
        None => digest_all(&files.named()),
    }
}

/// That of a model in memory.
pub fn in_memory(files: &Files) -> Option<FileDigest> {
    let (_, bytes) = files.contents().next().filter(|_| files.is_in_memory())?;
    let name = files.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Some(FileDigest { name, bytes: bytes.len() as u64, sha256: sha256_hex(bytes) })
}

/// The same of files with the names that count.
pub fn digest_all(files: &[(String, PathBuf)]) -> Result<Vec<FileDigest>, LoadError> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        while let Some((name, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((name.clone(), path, sha256(path)));
        }
        done
    };
    let mut list: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = (1..files.len().min(READERS)).map(|_| scope.spawn(some)).collect();
        let own = some();
        let others = readers.into_iter().flat_map(|it| it.join().expect("readers do not panic"));
        own.into_iter().chain(others).collect()
    });
    list.sort_by_key(|it| files.iter().position(|(_, path)| path == it.1));
    let digest = |(name, path, it): (String, &PathBuf, io::Result<(u64, String)>)| {
        let (bytes, sha256) = it.map_err(|source| LoadError::Io { path: path.clone(), source })?;
        Ok(FileDigest { name, bytes, sha256 })
    };
    list.into_iter().map(digest).collect()
}

/// One digest for all files: one file has its own, several that of lines of `digest  name`.
pub fn combined(files: &[FileDigest]) -> String {
    if let [only] = files {
        return only.sha256.clone();
    }
    let line = |it: &FileDigest| format!("{}  {}\n", it.sha256, it.name);
    sha256_hex(files.iter().map(line).collect::<String>())
}

/// The size and the digest of a file.
pub fn sha256(path: &Path) -> io::Result<(u64, String)> {
    sha256_of(crate::fs::open_file(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn files_keep_their_order_and_one_counts_for_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = |at: usize| (format!("f{at}"), folder.path().join(format!("f{at}")));
        let files: Vec<_> = (0..9).map(file).collect();
        files.iter().for_each(|it| std::fs::write(&it.1, it.0.repeat(1 << 20)).unwrap());
        std::fs::write(&files[0].1, "abc").unwrap();
        let all = digest_all(&files).unwrap();
        assert_eq!((all[0].bytes, &*all[0].sha256), (3, ABC));
        let names: Vec<&str> = all.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8"]);
        assert_eq!(combined(&all[..1]), ABC);
        let other = combined(&[all[0].clone(), all[2].clone()]);
        assert_ne!(combined(&all[..2]), other);
        std::fs::remove_file(&files[3].1).unwrap();
        assert!(matches!(digest_all(&files), Err(LoadError::Io { .. })));
    }
}
