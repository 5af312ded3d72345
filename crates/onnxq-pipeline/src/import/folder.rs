//! A folder that appears at once, complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    Error,
    staged::{Shown, beside, failed, parent, scratch_beside},
};
use onnxq_formats::CheckpointError;
use onnxq_ir::{
    ctx::Progress,
    fs::{ScratchFolder, lock_folder},
    onnx::SaveOptions,
};

/// Files of a checkpoint that clients read beside the model, where they are there.
pub(crate) const BESIDE: &[&str] = &[
    "1_Pooling/config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.txt",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

pub(crate) struct Folder {
    output: PathBuf,
    temp: ScratchFolder,
    force: bool,
}

impl Folder {
    /// An empty folder beside `output`, which must be free unless `force`.
    pub(crate) fn new(output: &Path, force: bool) -> Result<Folder, Error> {
        SaveOptions { force, ..SaveOptions::default() }.check_free(output)?;
        let temp = scratch_beside(output)?;
        Ok(Folder { output: output.into(), temp, force })
    }

    /// Where it is written.
    pub(crate) fn root(&self) -> &Path {
        self.temp.path()
    }

    /// Progress that names files by where they will be.
    pub(crate) fn shown<'a>(&self, progress: &'a dyn Progress) -> Shown<'a> {
        Shown::new(progress, self.temp.path(), &self.output)
    }

    /// The place of a file of it, whose folder is there.
    pub(crate) fn path(&self, file: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = self.temp.path().join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        Ok(path)
    }

    pub(crate) fn write(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.path(file)?;
        Ok(fs::write(&path, text).map_err(failed(&path))?)
    }

    /// Copies those of the files that are there into a folder of it; `""` is itself.
    pub(crate) fn copy(&mut self, from: &Path, files: &[&str], to: &str) -> Result<(), Error> {
        for file in files.iter().filter(|it| from.join(it).is_file()) {
            let (source, copy) = (from.join(file), Path::new(to).join(file));
            fs::copy(&source, self.path(&copy)?).map_err(failed(&source))?;
        }
        Ok(())
    }

    /// Moves it to its destination. Its files, in alphabetical order.
    pub(crate) fn persist(self) -> Result<Vec<String>, Error> {
        let mut files = Vec::new();
        list(self.temp.path(), "", &mut files)?;
        files.sort();
        let _alone = lock_folder(parent(&self.output)).map_err(failed(&self.output))?;
        SaveOptions { force: self.force, ..SaveOptions::default() }.check_free(&self.output)?;
        let old = match self.force && self.output.exists() {
            true => Some(move_away(&self.output)?),
            false => None,
        };
        self.temp.move_to(&self.output).map_err(failed(&self.output))?;
        drop(old);
        Ok(files)
    }
}

/// What stood at the destination: gone when dropped.
fn move_away(path: &Path) -> Result<tempfile::TempDir, Error> {
    let temp = beside(path, ".onnxq-old-")?;
    fs::rename(path, temp.path().join("old")).map_err(failed(path))?;
    Ok(temp)
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => list(&entry.path(), &format!("{name}/"), files)?,
            false => files.push(name),
        }
    }
    Ok(())
}

/// A JSON object of a checkpoint; empty if there is none.
pub(super) fn object(folder: &Path, name: &str) -> Result<Map<String, Value>, Error> {
    let path = folder.join(name);
    let bytes = match onnxq_ir::fs::read_file(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => return Err(CheckpointError::Io { path, source }.into()),
    };
    let wrong = |problem: String| CheckpointError::Json { file: name.to_owned(), problem };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("it holds another kind of value".into()).into()),
        Err(error) => Err(wrong(error.to_string()).into()),
    }
}
