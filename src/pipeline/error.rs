//! Why a job failed.

use super::{NeedsData, Unmet};
use crate::{
    calibrate::{CalibrateError, DataError},
    codes::Fault,
    engine::EngineError,
    ir::Broken,
    onnx::{LoadError, SaveError},
    quant::{format::NotLowered, solve::BadStats, weight::StoreError},
    recipe::RecipeError,
    report::CompareError,
    rewrite::PassError,
};

/// Why a job failed: the error of the step that did.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    BadStats(#[from] BadStats),
    Broken(#[from] Broken),
    Calibrate(#[from] CalibrateError),
    Compare(#[from] CompareError),
    Data(#[from] DataError),
    Engine(#[from] EngineError),
    Load(#[from] LoadError),
    NeedsData(#[from] NeedsData),
    NotLowered(#[from] NotLowered),
    Pass(#[from] PassError),
    Recipe(#[from] RecipeError),
    Save(#[from] SaveError),
    Store(#[from] StoreError),
    Unmet(#[from] Unmet),
}

impl Error {
    fn fault(&self) -> Option<&dyn Fault> {
        Some(match self {
            Error::Broken(_) => return None,
            Error::BadStats(it) => it,
            Error::Calibrate(it) => it,
            Error::Compare(it) => it,
            Error::Data(it) => it,
            Error::Engine(it) => it,
            Error::Load(it) => it,
            Error::NeedsData(it) => it,
            Error::NotLowered(it) => it,
            Error::Pass(it) => it,
            Error::Recipe(it) => it,
            Error::Save(it) => it,
            Error::Store(it) => it,
            Error::Unmet(it) => it,
        })
    }
}

impl Fault for Error {
    fn code(&self) -> &'static str {
        self.fault().map_or("E999", |it| it.code())
    }

    fn hint(&self) -> Option<String> {
        self.fault()?.hint()
    }
}
