//! Stands in for `ort.rs` in builds without the feature `runtime`.

use std::path::{Path, PathBuf};

use super::{Decoder, EngineError, Located, Reject, Session, SessionOptions, Source};

pub(super) fn loaded(_: Option<&Path>) -> Result<Option<Located>, EngineError> {
    Err(EngineError::Disabled)
}

pub(super) fn open(
    _: &Located,
    _: Source<'_>,
    _: &SessionOptions,
    _: &[PathBuf],
) -> Result<Box<dyn Session>, EngineError> {
    Err(EngineError::Disabled)
}

pub(super) fn open_decoder(
    _: &Located,
    _: Source<'_>,
    _: &SessionOptions,
    _: (&[PathBuf], bool),
) -> Result<Box<dyn Decoder>, EngineError> {
    Err(EngineError::Disabled)
}

pub(super) fn register(_: &Located, _: &[PathBuf]) -> Result<(), EngineError> {
    Err(EngineError::Disabled)
}

pub(super) fn providers(_: &Located) -> Result<Vec<String>, EngineError> {
    Err(EngineError::Disabled)
}

pub(super) fn version(_: &Path) -> Result<String, Reject> {
    Err(Reject::Load("this build of onnxq lacks the feature `runtime`".to_owned()))
}
