//! A model that is judged before it gets its place.
//!
//! It is written into a folder beside its destination. If it holds what was asked of it, its files move
//! to the destination, else to a folder called `OUTPUT.rejected`: whoever reads the destination never finds
//! a model that missed a gate, and an older one that is there stays.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::Error;
use onnxq_formats::CheckpointError;
use onnxq_ir::{
    ctx::Progress,
    diag::Warning,
    fs::{ScratchFolder, lock_folder},
    onnx::{SaveError, SaveOptions},
};

/// A model on its way to its destination.
pub struct Staged {
    output: PathBuf,
    force: bool,
    temp: ScratchFolder,
}

impl Staged {
    /// A place beside `output`, which must be free unless `force`.
    pub fn new(output: &Path, force: bool) -> Result<Staged, Error> {
        SaveOptions { force, ..SaveOptions::default() }.check_free(output)?;
        if output.is_dir() {
            return Err(SaveError::Exists { path: output.into() }.into());
        }
        Ok(Staged { output: output.into(), force, temp: scratch_beside(output)? })
    }

    /// Where the model is written.
    pub fn path(&self) -> PathBuf {
        self.temp.path().join(self.output.file_name().unwrap_or_default())
    }

    /// Progress that names files by where they will be.
    pub fn shown<'a>(&self, progress: &'a dyn Progress) -> Shown<'a> {
        Shown::new(progress, &self.path(), &self.output)
    }

    /// Moves the model to its destination.
    pub fn accept(self) -> Result<(), Error> {
        self.move_to(&self.output, self.force)
    }

    /// Moves the model into the folder of those that were rejected. Says where it is.
    pub fn reject(self) -> Result<PathBuf, Error> {
        let folder = rejected(&self.output);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let to = folder.join(self.output.file_name().unwrap_or_default());
        self.move_to(&to, true)?;
        Ok(to)
    }

    /// An old graph never meets new data, and the new one appears when its data is there. Another run
    /// with the same destination waits meanwhile, so that no graph gets the other's data.
    fn move_to(&self, output: &Path, force: bool) -> Result<(), Error> {
        let parent = parent(output);
        let _alone = lock_folder(parent).map_err(failed(parent))?;
        let data = self.data()?;
        let free = SaveOptions { force, ..SaveOptions::default() };
        free.check_free(output)?;
        for file in &data {
            free.check_free(&parent.join(file.file_name().unwrap_or_default()))?;
        }
        if !data.is_empty() && output.exists() {
            fs::remove_file(output).map_err(failed(output))?;
        }
        for file in data {
            let to = parent.join(file.file_name().unwrap_or_default());
            fs::rename(&file, &to).map_err(failed(&to))?;
        }
        Ok(fs::rename(self.path(), output).map_err(failed(output))?)
    }

    /// The files of its weights.
    fn data(&self) -> Result<Vec<PathBuf>, Error> {
        let (folder, graph) = (self.temp.path(), self.path());
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            files.push(entry.map_err(failed(folder))?.path());
        }
        files.retain(|file| *file != graph);
        files.sort();
        Ok(files)
    }
}

/// `out.onnx.rejected` for `out.onnx`.
fn rejected(output: &Path) -> PathBuf {
    let mut name: OsString = output.as_os_str().to_owned();
    name.push(".rejected");
    name.into()
}

/// Progress that names a file by what the user calls it.
pub struct Shown<'a> {
    progress: &'a dyn Progress,
    from: String,
    to: String,
}

impl<'a> Shown<'a> {
    /// Progress in which the path `to` stands for `from`.
    pub fn new(progress: &'a dyn Progress, from: &Path, to: &Path) -> Shown<'a> {
        let [from, to] = [from, to].map(|path| path.display().to_string());
        Shown { progress, from, to }
    }
}

impl Progress for Shown<'_> {
    fn start(&self, task: &str, total: u64) {
        self.progress.start(task, total);
    }

    fn step(&self, n: u64) {
        self.progress.step(n);
    }

    fn done(&self, summary: &str) {
        self.progress.done(&summary.replace(&self.from, &self.to));
    }

    fn warn(&self, warning: &Warning) {
        self.progress.warn(warning);
    }
}

/// An empty folder on the same disk as a path.
pub(crate) fn scratch_beside(path: &Path) -> Result<ScratchFolder, Error> {
    let folder = parent(path);
    Ok(ScratchFolder::new(folder, ".onnxq-new-").map_err(failed(folder))?)
}

pub(crate) fn beside(path: &Path, prefix: &str) -> Result<tempfile::TempDir, Error> {
    let temp = tempfile::Builder::new().prefix(prefix).tempdir_in(parent(path));
    Ok(temp.map_err(failed(parent(path)))?)
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn failed(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(output: &Path) -> Staged {
        let staged = Staged::new(output, true).unwrap();
        fs::write(staged.path(), "graph").unwrap();
        fs::write(staged.path().with_extension("onnx.data"), "weights").unwrap();
        staged
    }

    #[test]
    fn a_model_gets_its_place_with_its_data() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("m.onnx");
        fs::write(&output, "old").unwrap();
        staged(&output).accept().unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "graph");
        assert_eq!(fs::read_to_string(folder.path().join("m.onnx.data")).unwrap(), "weights");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_rejected_model_lies_beside_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("m.onnx");
        fs::write(&output, "old").unwrap();
        for _ in 0..2 {
            let place = staged(&output).reject().unwrap();
            assert_eq!(place, folder.path().join("m.onnx.rejected/m.onnx"));
            assert_eq!(fs::read_to_string(place).unwrap(), "graph");
            assert_eq!(fs::read_to_string(&output).unwrap(), "old");
        }
    }

    #[test]
    fn two_runs_leave_the_files_of_one() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join("m.onnx");
            let run = |name: &'static str| {
                let staged = Staged::new(&output, true).unwrap();
                fs::write(staged.path(), name).unwrap();
                for data in 0..4 {
                    fs::write(staged.path().with_extension(format!("data_{data}")), name).unwrap();
                }
                std::thread::spawn(move || staged.accept().unwrap())
            };
            let runs = ["a", "b"].map(run);
            runs.into_iter().for_each(|it| it.join().unwrap());
            let files = fs::read_dir(folder.path()).unwrap();
            let mut texts: Vec<String> =
                files.map(|it| fs::read_to_string(it.unwrap().path()).unwrap()).collect();
            assert_eq!(texts.len(), 5);
            texts.dedup();
            assert_eq!(texts.len(), 1);
        }
    }

    #[test]
    fn what_came_meanwhile_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("m.onnx");
        let staged = Staged::new(&output, false).unwrap();
        fs::write(staged.path(), "graph").unwrap();
        fs::write(&output, "other").unwrap();
        assert!(staged.accept().is_err());
        assert_eq!(fs::read_to_string(&output).unwrap(), "other");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("m.onnx");
        fs::write(&output, "old").unwrap();
        assert!(Staged::new(&output, false).is_err());
        assert!(Staged::new(folder.path(), true).is_err());
    }
}
