//! Sessions that run a segment of a model, one for each thread.

use super::{CalibrateError, segment::Segment};
use crate::engine::{Runtime, Session, SessionOptions};
use onnxq_ir::onnx::{self, Attached, Files};

/// One session per thread; none where nothing is left to compute.
pub(super) fn open(
    segment: &Segment,
    files: &Files,
    runtime: &Runtime,
    threads: usize,
) -> Result<Vec<Option<Box<dyn Session>>>, CalibrateError> {
    if !segment.runs() {
        return Ok((0..threads).map(|_| None).collect());
    }
    runtime.check(&segment.part.model, "a part of the model")?;
    let attached = onnx::attach(&segment.part.model, files)?;
    // As it is written: fusions depend on which values are outputs, and so would the numbers. On
    // a prepared graph they gain nothing (34.5 and 34.4 ms per run of MiniLM at 1×128); packed
    // weights and an arena gain 12 %, for another copy of the weights per thread.
    let options = SessionOptions { threads: 1, optimize: false, lean: true, ..Default::default() };
    let folder = Some(Attached::folder());
    let open = |_| Ok(Some(runtime.open_bytes(&attached.graph, folder, &options)?));
    (0..threads).map(open).collect()
}
