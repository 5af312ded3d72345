//! One process at a time where files move to their places.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::Stamp;

/// Moving a few files takes no longer, even on a disk that is slow to rename.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nobody else who asks has the folder until this is dropped. The lock goes with its process, however
/// that ends, and leaves no file.
pub struct FolderLock {
    _folder: Option<File>,
}

/// Waits until no other process moves files into a folder. Where the file system or the system has
/// no such locks, or the folder may be written and not read, nothing keeps them apart.
///
/// # Errors
/// If somebody has had it for half a minute.
#[cfg(unix)]
pub fn lock_folder(folder: &Path) -> io::Result<FolderLock> {
    let file = match File::open(folder) {
        Err(it) if it.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(FolderLock { _folder: None });
        }
        opened => opened?,
    };
    let began = Instant::now();
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if began.elapsed() > PATIENCE {
            let message = "another process has locked the folder for half a minute";
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(FolderLock { _folder: Some(file) })
}

/// Windows opens no folders as files.
#[cfg(not(unix))]
pub fn lock_folder(_: &Path) -> io::Result<FolderLock> {
    Ok(FolderLock { _folder: None })
}

/// Opens the file at a path to read and write, makes it if need be, and keeps it from other processes
/// that open it so.
///
/// # Errors
/// `ResourceBusy` if one has it.
pub fn open_alone(path: &Path) -> io::Result<File> {
    loop {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // Whoever had it may have removed it meanwhile.
        let own = Stamp::of(&file.metadata()?);
        match path.symlink_metadata() {
            Ok(it) if Stamp::of(&it).is_same_file(&own) => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_of_one_at_a_time_and_holds_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let lock = lock_folder(folder.path()).unwrap();
        let path = folder.path().to_owned();
        let other = std::thread::spawn(move || {
            let began = Instant::now();
            let _lock = lock_folder(&path).unwrap();
            began.elapsed()
        });
        sleep(Duration::from_millis(200));
        drop(lock);
        assert!(other.join().unwrap() >= Duration::from_millis(50));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_of_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = open_alone(&path).unwrap();
        assert_eq!(open_alone(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        std::fs::remove_file(&path).unwrap();
        let new = open_alone(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(new);
        open_alone(&path).unwrap();
    }
}
