//! A file on the destination's disk that becomes it in one step, or vanishes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// What is about to become the file at a path.
///
/// Nothing is there before [`Replacement::persist`], and nothing is left behind without that.
pub struct Replacement {
    path: PathBuf,
    temp: Temp,
}

enum Temp {
    /// Without a name, so that not even a killed process leaves it behind.
    Unnamed(File),
    Named(NamedTempFile),
}

impl Replacement {
    /// An empty file beside `path`.
    pub fn of(path: &Path) -> io::Result<Replacement> {
        let temp = match unnamed(folder(path)) {
            Some(file) => Temp::Unnamed(file),
            None => Temp::Named(named(path)?),
        };
        Ok(Replacement { path: path.into(), temp })
    }

    /// To be filled.
    pub fn file(&self) -> &File {
        match &self.temp {
            Temp::Unnamed(file) => file,
            Temp::Named(file) => file.as_file(),
        }
    }

    /// Takes the place of whatever is at the path, once everything is on the disk.
    pub fn persist(self) -> io::Result<()> {
        self.file().sync_all()?;
        let path = &self.path;
        match self.temp {
            Temp::Named(named) => drop(named.persist(path)?),
            Temp::Unnamed(file) => {
                let prefix = prefix(path);
                let linked = sibling(&prefix).make_in(folder(path), |it| link(&file, it))?;
                linked.into_temp_path().persist(path)?;
            }
        }
        sync_folder(folder(path))
    }
}

/// Writes a whole file in place of whatever is at `path`, or nothing at all.
///
/// A link stays a link. A pipe or a device is written as it is.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    if fs::metadata(&real).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
        return OpenOptions::new().write(true).open(&real)?.write_all(bytes);
    }
    let replacement = Replacement::of(&real)?;
    replacement.file().write_all(bytes)?;
    replacement.persist()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(it) if !it.as_os_str().is_empty() => it,
        _ => Path::new("."),
    }
}

fn prefix(path: &Path) -> String {
    format!(".{}-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// Temporary names beside the destination, so that the rename stays on one disk.
fn sibling(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(".tmp");
    builder
}

fn named(path: &Path) -> io::Result<NamedTempFile> {
    let prefix = prefix(path);
    let mut builder = sibling(&prefix);
    // Temporary files are private, but this one becomes a file like any other.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder(path))
}

/// `None` where the system or the disk cannot do it.
fn unnamed(folder: &Path) -> Option<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        open(folder, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        None
    }
}

/// Gives a file without a name one.
#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, linkat};
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, from, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The rename itself must survive a power cut.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows opens no folders as files.
#[cfg(windows)]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let dropped = Replacement::of(&path).unwrap();
        dropped.file().write_all(b"half").unwrap();
        drop(dropped);
        assert_eq!(names(), 0);
        for text in ["old", "new"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names()), (text, 1));
        }
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(replace(&folder.path().join("b"), b"text").is_err());
        assert_eq!(names(), 2);
    }

    #[test]
    fn a_file_with_a_temporary_name_becomes_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let temp = Temp::Named(named(&path).unwrap());
        let replacement = Replacement { path: path.clone(), temp };
        replacement.file().write_all(b"text").unwrap();
        replacement.persist().unwrap();
        let plain = folder.path().join("b");
        fs::write(&plain, "text").unwrap();
        let permissions = |path| fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions(&path), permissions(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "old").unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        replace(&path("link"), b"new").unwrap();
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "new");
        assert!(path("link").is_symlink());
    }
}
