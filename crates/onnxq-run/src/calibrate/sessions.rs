//! Sessions that run a segment of a model, one for each thread.

use super::{
    CalibrateError,
    segment::Segment,
    wave::Sessions,
};
use crate::engine::{self, RuntimeOptions, SessionOptions};
use onnxq_ir::onnx::{self, Attached, Files};

/// One session per thread, or none where nothing is left to compute.
pub fn open(
    segment: Option<&Segment>,
    files: &Files,
    runtime: &RuntimeOptions,
    threads: usize,
) -> Result<Vec<Sessions>, CalibrateError> {
    let Some(segment) = segment.filter(|it| it.runs()) else {
        return Ok((0..threads).map(|_| [None, None]).collect());
    };
    let attached = onnx::attach(&segment.part.model, files)?;
    // As it is written: fusions depend on which values are outputs, and so would the numbers. On
    // a prepared graph they gain nothing (34.5 and 34.4 ms per run of MiniLM at 1×128); packed
    // weights and an arena gain 12 %, for another copy of the weights per thread.
    let options = SessionOptions { threads: 1, optimize: false, lean: true, ..Default::default() };
    let folder = Some(Attached::folder());
    let open = |_| {
        let session = engine::open_bytes(&attached.graph, folder, &options, runtime)?;
        Ok([Some(session), None])
    };
    (0..threads).map(open).collect()
}
