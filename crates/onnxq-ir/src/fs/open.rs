//! Opening regular files only, and telling files apart.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use memmap2::Mmap;

/// What tells a file apart, and changes when somebody writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and number of the file, where the system tells them.
    identity: Option<(u64, u64)>,
    /// Bytes.
    pub size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of a file that was looked up.
    pub fn of(meta: &Metadata) -> Stamp {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Stamp {
                identity: Some((meta.dev(), meta.ino())),
                size: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            }
        }
        #[cfg(windows)]
        {
            use std::os::windows::fs::MetadataExt;
            let modified = (meta.last_write_time().cast_signed(), 0);
            Stamp { identity: None, size: meta.len(), modified }
        }
    }

    /// Whether both are of the same file, whatever it is called. Where the system does not tell,
    /// files of the same size and time count as the same.
    pub fn is_same_file(&self, other: &Stamp) -> bool {
        match (self.identity, other.identity) {
            (Some(own), Some(other)) => own == other,
            _ => self == other,
        }
    }
}

/// The contents of an open file, mapped; no bytes for an empty one.
pub fn map(file: &File) -> io::Result<Bytes> {
    match file.metadata()?.len() {
        0 => Ok(Bytes::new()),
        // SAFETY: the mapping is private and read-only. If another process truncates the file
        // while we read, the system ends us by a signal; nothing is written through it.
        _ => Ok(Bytes::from_owner(unsafe { Mmap::map(file)? })),
    }
}

/// Reads a file into the system's cache, in pages of 2 MiB where its file system has such (Linux).
///
/// Whoever maps the file afterwards gets these pages, which take fewer look-ups of addresses.
pub fn read_ahead(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use memmap2::{Advice, MmapOptions};
        /// So little is mapped at a time, because it counts as this process's memory.
        const WINDOW: u64 = 32 << 20;
        let size = file.metadata()?.len();
        for offset in (0..size).step_by(WINDOW as usize) {
            let length = WINDOW.min(size - offset) as usize;
            // SAFETY: as in `map`; nothing is read through this mapping.
            let map = unsafe { MmapOptions::new().offset(offset).len(length).map(file)? };
            // An error where pages are small.
            let _ = map.advise(Advice::HugePage);
            map.advise(Advice::PopulateRead)?;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}

/// How many names a file has; 1 where the system does not tell.
pub fn links(meta: &Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::nlink(meta)
    }
    #[cfg(windows)]
    {
        let _ = meta;
        1
    }
}

/// Opens a file for reading, with what is known of it; `None` if it is no regular file.
///
/// A pipe is not waited for. Without `follow`, a link is an error or no regular file.
pub fn open_regular(path: &Path, follow: bool) -> io::Result<Option<(File, Metadata)>> {
    let file = open(path, follow)?;
    let meta = file.metadata()?;
    Ok(meta.is_file().then_some((file, meta)))
}

/// Opens a file that a user names. A pipe or a device would be waited for, or would never end.
pub fn open_file(path: &Path) -> io::Result<File> {
    match open_regular(path, true)? {
        Some((file, _)) => Ok(file),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// All of such a file.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of such a file, which is UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_file(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(unix)]
fn open(path: &Path, follow: bool) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    // NONBLOCK: opening a pipe must not wait for a writer.
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follow);
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

#[cfg(windows)]
fn open(path: &Path, follow: bool) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    /// The link itself is opened, which is no regular file.
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    let flags = if follow { 0 } else { FILE_FLAG_OPEN_REPARSE_POINT };
    File::options().read(true).custom_flags(flags).open(path)
}

/// Bytes that may still be written to the disk of a folder, where the system tells.
pub fn available_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(windows)]
    {
        let _ = folder;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_told_apart_and_changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "a").unwrap();
        fs::write(path("b"), "bb").unwrap();
        fs::hard_link(path("a"), path("c")).unwrap();
        let stamp = |name: &str| Stamp::of(&fs::metadata(path(name)).unwrap());
        assert!(stamp("a").is_same_file(&stamp("c")) && !stamp("a").is_same_file(&stamp("b")));
        let before = stamp("a");
        fs::write(path("a"), "aa").unwrap();
        assert!(stamp("a") != before && stamp("a").size == 2);
        assert!(open_regular(&path("a"), false).unwrap().is_some());
        assert!(open_regular(&path("d"), true).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_folders_are_no_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "a").unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        assert!(open_regular(&path("link"), true).unwrap().is_some());
        assert!(open_regular(&path("link"), false).is_err());
        assert!(open_regular(folder.path(), true).unwrap().is_none());
        fs::hard_link(path("a"), path("b")).unwrap();
        assert_eq!(links(&fs::metadata(path("a")).unwrap()), 2);
        assert!(available_space(folder.path()).is_some());
    }
}
