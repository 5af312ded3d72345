//! What can go wrong while statistics of a model's inputs are collected.

use super::{StatsError, cut::CutError};
use crate::data::DataError;
use crate::engine::EngineError;
use onnxq_ir::{
    diag::{Code, Diagnostic},
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
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error(transparent)]
    Stats(#[from] StatsError),
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
}

impl Diagnostic for CalibrateError {
    fn code(&self) -> Code {
        match self {
            CalibrateError::Data(it) => it.code(),
            CalibrateError::Engine(it) => it.code(),
            CalibrateError::Load(it) => it.code(),
            CalibrateError::Save(it) => it.code(),
            CalibrateError::Cut(_) => Code::E901,
            CalibrateError::Stats(it) => it.code(),
            CalibrateError::Memory { .. } => Code::E612,
            CalibrateError::NonFinite { .. } => Code::E614,
            CalibrateError::Width { .. }
            | CalibrateError::Tensor { .. }
            | CalibrateError::Unobservable { .. } => Code::E803,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            CalibrateError::Data(it) => return it.hint(),
            CalibrateError::Engine(it) => return it.hint(),
            CalibrateError::Load(it) => return it.hint(),
            CalibrateError::Save(it) => return it.hint(),
            CalibrateError::Stats(it) => return it.hint(),
            CalibrateError::Cut(_) => {
                "free some space in the temporary folder, or set TMPDIR to another one".into()
            }
            CalibrateError::Memory { needed, .. } => {
                format!("pass --memory {}MiB or more", needed.div_ceil(1 << 20))
            }
            CalibrateError::NonFinite { .. } => {
                "check the model with `onnxq validate` on the same data".into()
            }
            _ => return None,
        })
    }
}
