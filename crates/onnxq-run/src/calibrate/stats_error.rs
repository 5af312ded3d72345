//! Why statistics of an earlier run cannot be used.

use std::{io, path::PathBuf};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    untrusted::Untrusted,
};

#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error("cannot read or write {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {}", .path.display(), Untrusted(.fact))]
    Damaged { path: PathBuf, fact: String },
    #[error("{} holds statistics of another model", .path.display())]
    OtherModel { path: PathBuf },
    #[error("{} holds statistics of other data", .path.display())]
    OtherData { path: PathBuf },
    #[error("{} holds statistics of {actual} samples, not of {expected}", .path.display())]
    OtherSamples { path: PathBuf, actual: u64, expected: u64 },
    #[error("{} holds statistics of another plan", .path.display())]
    OtherPrefix { path: PathBuf },
}

impl Diagnostic for StatsError {
    fn code(&self) -> Code {
        match self {
            StatsError::Io { .. } => Code::E902,
            StatsError::Damaged { .. } => Code::E613,
            _ => Code::E611,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            StatsError::Io { .. } => return None,
            StatsError::Damaged { .. } => "delete it and calibrate again".into(),
            StatsError::OtherModel { .. } => {
                "pass the model that they were made with, or another path for new ones".into()
            }
            StatsError::OtherData { .. } | StatsError::OtherSamples { .. } => {
                "pass the data that they were made with, or another path for new ones".into()
            }
            StatsError::OtherPrefix { .. } => {
                "later layers saw weights that were quantized differently: use the same recipe, or another path for new ones".into()
            }
        })
    }
}
