//! CONTRACT STUB

use std::path::{Path, PathBuf};

use super::Batches;
use crate::{
    ctx::Ctx,
    engine::RuntimeOptions,
    ir::{Model, NoMatch, NodeId, ValueId},
    onnx::Files,
    quant::stats::{InputStats, Needs},
    tensor::Tensor,
};

pub struct Want {
    pub value: ValueId,
    pub needs: Needs,
}
pub struct Replacement {
    pub node: NodeId,
    pub index: usize,
    pub tensor: Tensor,
}
pub struct CollectOptions {
    pub memory: u64,
    pub threads: usize,
    pub sequential: bool,
}
pub struct StatsFile(PathBuf);
impl StatsFile {
    pub fn new(p: &Path) -> StatsFile {
        StatsFile(p.into())
    }
}
pub struct Collector<'a>(&'a Model);
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct CalibrateError;
impl crate::codes::Fault for CalibrateError {
    fn code(&self) -> &'static str {
        "E610"
    }
}
impl<'a> Collector<'a> {
    pub fn new(
        model: &'a Model,
        _files: &'a Files,
        _wants: Vec<Want>,
        _batches: Batches,
        _options: CollectOptions,
        _runtime: &RuntimeOptions,
        _store: Option<StatsFile>,
    ) -> Result<Collector<'a>, CalibrateError> {
        Ok(Collector(model))
    }
    pub fn next(
        &mut self,
        _replaced: &[Replacement],
        _ctx: &Ctx,
    ) -> Result<Option<Vec<(ValueId, InputStats)>>, CalibrateError> {
        Ok(None)
    }
}
pub fn can_observe(_m: &Model, _v: ValueId) -> Result<(), NoMatch> {
    Ok(())
}
