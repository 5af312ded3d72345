//! Why a job failed.

use super::{
    MissingStats, NeedsData, RangesNeedData, TransformNeedsData, Unmet, Unreached,
    attribution::Unbisectable, convert::ShapeError,
};
use onnxq_ir::{
    Broken,
    diag::{Code, Diagnostic},
    onnx::{LoadError, SaveError},
    tensor::TensorError,
};
use onnxq_numerics::solve::BadStats;
use onnxq_quant::{format::NotLowered, recipe::RecipeError, weight::StoreError};
use onnxq_report::{baseline::OtherBaseline, document::ReadError};
use onnxq_rewrite::{
    PassError, cache::CacheError, half::HalfError, lint::OwnFinding, opset::OpsetError,
};
use onnxq_run::{
    calibrate::{CalibrateError, StatsError},
    compare::CompareError,
    data::DataError,
    engine::EngineError,
};

/// Why a job failed: the error of the step that did.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    BadStats(#[from] BadStats),
    Broken(#[from] Broken),
    Cache(#[from] CacheError),
    Calibrate(#[from] CalibrateError),
    Compare(#[from] CompareError),
    Data(#[from] DataError),
    Engine(#[from] EngineError),
    Half(#[from] HalfError),
    Load(#[from] LoadError),
    MissingStats(#[from] MissingStats),
    NeedsData(#[from] NeedsData),
    NotLowered(#[from] NotLowered),
    Opset(#[from] OpsetError),
    OtherBaseline(#[from] OtherBaseline),
    OwnFinding(#[from] OwnFinding),
    Pass(#[from] PassError),
    Ranges(#[from] RangesNeedData),
    Recipe(#[from] RecipeError),
    Report(#[from] ReadError),
    Save(#[from] SaveError),
    Shape(#[from] ShapeError),
    Stats(#[from] StatsError),
    Store(#[from] StoreError),
    Transform(#[from] TransformNeedsData),
    Unbisectable(#[from] Unbisectable),
    Unmet(#[from] Unmet),
    Unreached(#[from] Unreached),
}

impl Error {
    fn fault(&self) -> Option<&dyn Diagnostic> {
        Some(match self {
            Error::Broken(_) => return None,
            Error::BadStats(it) => it,
            Error::Cache(it) => it,
            Error::Calibrate(it) => it,
            Error::Compare(it) => it,
            Error::Data(it) => it,
            Error::Engine(it) => it,
            Error::Half(it) => it,
            Error::Load(it) => it,
            Error::MissingStats(it) => it,
            Error::NeedsData(it) => it,
            Error::NotLowered(it) => it,
            Error::Opset(it) => it,
            Error::OtherBaseline(it) => it,
            Error::OwnFinding(it) => it,
            Error::Pass(it) => it,
            Error::Ranges(it) => it,
            Error::Recipe(it) => it,
            Error::Report(it) => it,
            Error::Save(it) => it,
            Error::Shape(it) => it,
            Error::Stats(it) => it,
            Error::Store(it) => it,
            Error::Transform(it) => it,
            Error::Unbisectable(it) => it,
            Error::Unmet(it) => it,
            Error::Unreached(it) => it,
        })
    }
}

/// A weight that cannot be read fails the same way whatever it is read for.
impl From<TensorError> for Error {
    fn from(it: TensorError) -> Error {
        StoreError::Tensor(it).into()
    }
}

impl Diagnostic for Error {
    fn code(&self) -> Code {
        self.fault().map_or(Code::E999, |it| it.code())
    }

    fn hint(&self) -> Option<String> {
        self.fault()?.hint()
    }
}
