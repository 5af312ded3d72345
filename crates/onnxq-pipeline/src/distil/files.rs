//! What is wrong with a file that a training keeps for a later one.

use std::{
    io,
    path::{Path, PathBuf},
};

use onnxq_ir::diag::{Code, Diagnostic};

#[derive(Debug, thiserror::Error)]
#[error("`{}`{fault}", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    fault: Fault,
    /// What else helps than to delete it.
    otherwise: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(": {0}")]
    Io(#[from] io::Error),
    #[error(" is damaged: {0}")]
    Damaged(String),
    /// Of another training, in these words.
    #[error("{0}")]
    Other(&'static str),
}

impl Fault {
    pub(super) fn of(self, path: &Path, otherwise: &'static str) -> FileError {
        FileError { path: path.to_owned(), fault: self, otherwise }
    }
}

impl Diagnostic for FileError {
    fn code(&self) -> Code {
        match self.fault {
            Fault::Io(_) => Code::E901,
            Fault::Damaged(_) | Fault::Other(_) => Code::E643,
        }
    }

    fn hint(&self) -> Option<String> {
        match self.fault {
            Fault::Io(_) => None,
            _ => Some(format!("delete `{}`{}", self.path.display(), self.otherwise)),
        }
    }
}
