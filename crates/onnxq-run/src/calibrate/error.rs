//! What can go wrong while a model's inner values are observed, or what is known of them is read.

use std::{io, path::PathBuf};

use crate::data::DataError;
use crate::engine::EngineError;
use onnxq_ir::{
    diag::{Code, Diagnostic},
    fs::{read_code, read_hint},
    onnx::{LoadError, SaveError},
    tensor::TensorError,
    untrusted::Untrusted,
};
use onnxq_numerics::solve::BadStats;

#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("cannot keep what the model computed in a temporary file")]
    Scratch(#[source] io::Error),
    #[error("statistics of `{}` need {needed} bytes, the budget is {memory}", Untrusted(value))]
    Memory { value: String, needed: u64, memory: u64 },
    #[error("`{}` is not finite while the model runs on the data", Untrusted(value))]
    NonFinite { value: String, source: BadStats },
    #[error(
        "rows of `{}` have the shape {actual:?}; {expected} values were expected",
        Untrusted(value)
    )]
    Width { value: String, actual: Vec<usize>, expected: usize },
    #[error("cannot read `{}`", Untrusted(value))]
    Tensor { value: String, source: TensorError },
    #[error("`{}` cannot be observed: {reason}", Untrusted(value))]
    Unobservable { value: String, reason: String },
    #[error("what guides solvers is of no use in sample {sample}")]
    Weights { sample: usize, source: BadStats },
    #[error("cannot read or write {}", .path.display())]
    StatsFile { path: PathBuf, source: io::Error },
    #[error("{} is there, and no log of an interrupted run", .path.display())]
    Foreign { path: PathBuf },
    #[error("another run is using {}", .path.display())]
    InUse { path: PathBuf },
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
    #[error("{} holds statistics in which tokens count differently", .path.display())]
    OtherGuide { path: PathBuf },
}

impl Diagnostic for CalibrateError {
    fn code(&self) -> Code {
        match self {
            CalibrateError::Data(it) => it.code(),
            CalibrateError::Engine(it) => it.code(),
            CalibrateError::Load(it) => it.code(),
            CalibrateError::Save(it) => it.code(),
            CalibrateError::Scratch(_) => Code::E901,
            CalibrateError::Memory { .. } => Code::E612,
            CalibrateError::NonFinite { .. } | CalibrateError::Weights { .. } => Code::E614,
            CalibrateError::Width { .. }
            | CalibrateError::Tensor { .. }
            | CalibrateError::Unobservable { .. } => Code::E803,
            CalibrateError::StatsFile { source, .. } => read_code(source),
            CalibrateError::Foreign { .. } => Code::E903,
            CalibrateError::InUse { .. } => Code::E907,
            CalibrateError::Damaged { .. } => Code::E613,
            CalibrateError::OtherModel { .. }
            | CalibrateError::OtherData { .. }
            | CalibrateError::OtherSamples { .. }
            | CalibrateError::OtherPrefix { .. }
            | CalibrateError::OtherGuide { .. } => Code::E611,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            CalibrateError::Data(it) => return it.hint(),
            CalibrateError::Engine(it) => return it.hint(),
            CalibrateError::Load(it) => return it.hint(),
            CalibrateError::Save(it) => return it.hint(),
            CalibrateError::StatsFile { path, source } => return read_hint(path, source),
            CalibrateError::Foreign { .. } => {
                "what is learnt is kept there meanwhile: move it away, or pass another --stats".into()
            }
            CalibrateError::InUse { .. } => {
                "wait until it has ended, or give this one another output or another --stats".into()
            }
            CalibrateError::Scratch(_) => {
                "free some space in the temporary folder, or set TMPDIR to another one".into()
            }
            CalibrateError::Memory { needed, .. } => {
                format!("pass --memory {}MB or more", needed.div_ceil(1_000_000))
            }
            CalibrateError::NonFinite { .. } | CalibrateError::Weights { .. } => {
                "check the model with `onnxq validate` on the same data".into()
            }
            CalibrateError::Damaged { .. } => "delete it and calibrate again".into(),
            CalibrateError::OtherModel { .. } => {
                "pass the model that they were made with, or another path for new ones".into()
            }
            CalibrateError::OtherData { .. } | CalibrateError::OtherSamples { .. } => {
                "pass the data that they were made with, or another path for new ones".into()
            }
            CalibrateError::OtherPrefix { .. } => {
                "later layers saw weights that were quantized differently: use the same recipe, or another path for new ones".into()
            }
            CalibrateError::OtherGuide { .. } => {
                "guided solvers weigh tokens: pass --calibration, and another path for new ones".into()
            }
            _ => return None,
        })
    }
}
