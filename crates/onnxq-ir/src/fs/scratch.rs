//! Folders for files of one run.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{mark_in_use, remove_old_folders};

/// An empty folder, removed with all that is in it.
///
/// It lies in another one, whose lock says that it is in use: its own is free for [`lock_folder`].
///
/// [`lock_folder`]: super::lock_folder
pub struct ScratchFolder {
    path: PathBuf,
    _outer: tempfile::TempDir,
    _mark: Option<File>,
}

impl ScratchFolder {
    /// Below `folder`, in one whose name begins with `prefix`. What killed runs left there under that
    /// prefix is removed, so nobody else may use it.
    pub fn new(folder: &Path, prefix: &str) -> io::Result<ScratchFolder> {
        remove_old_folders(folder, prefix);
        let outer = tempfile::Builder::new().prefix(prefix).tempdir_in(folder)?;
        let mark = File::open(outer.path()).ok();
        mark.iter().for_each(mark_in_use);
        let path = outer.path().join("files");
        fs::create_dir(&path)?;
        Ok(ScratchFolder { path, _outer: outer, _mark: mark })
    }

    /// In the system's folder for temporary files.
    pub fn in_temp() -> io::Result<ScratchFolder> {
        ScratchFolder::new(&std::env::temp_dir(), "onnxq-work-")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it, where nothing or an empty folder is.
    pub fn move_to(self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lock_folder, *};

    #[test]
    fn it_can_be_locked_moves_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let scratch = ScratchFolder::new(folder.path(), ".new-").unwrap();
        drop(lock_folder(scratch.path()).unwrap());
        fs::write(scratch.path().join("a"), "text").unwrap();
        let place = folder.path().join("place");
        scratch.move_to(&place).unwrap();
        assert_eq!(names(), ["place"]);
        assert_eq!(fs::read_to_string(place.join("a")).unwrap(), "text");
        drop(ScratchFolder::new(folder.path(), ".new-").unwrap());
        assert_eq!(names(), ["place"]);
    }
}
