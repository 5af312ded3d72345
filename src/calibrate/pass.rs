//! One run of a whole model over all data, observers at its values.

use std::sync::Mutex;

use super::{
    Batches, CalibrateError,
    cut::Cut,
    observe::{Observe, Tap},
    segment::segment,
    sessions,
    wave::{Part, Wave},
};
use crate::{
    ctx::Ctx,
    engine::{self, RuntimeOptions},
    ir::{Model, ValueId},
    onnx::Files,
};

/// A value of the main graph, and who looks at it.
pub struct Observed<'a> {
    pub value: ValueId,
    /// The axis of tokens, if the value has one: those of padding are left out.
    pub tokens: Option<usize>,
    pub observer: &'a mut dyn Observe,
}

/// Runs `model` on every sample, one at a time, on so many threads (0: one per core).
///
/// Weights are mapped from `files`; what a sample makes of the observed values is in memory at
/// once, so they should be few or small. The caller has started a step of progress.
pub fn observe(
    model: &Model,
    files: &Files,
    observed: Vec<Observed>,
    batches: &mut Batches,
    threads: usize,
    runtime: &RuntimeOptions,
    ctx: &Ctx,
) -> Result<(), CalibrateError> {
    engine::ensure(runtime)?;
    batches.one_by_one();
    let wanted: Vec<ValueId> = observed.iter().map(|it| it.value).collect();
    let tap = |it| {
        let Observed { value, tokens, observer } = it;
        let name = model.value(value).name.to_string();
        Tap { name, width: None, tokens, observer: Mutex::new(observer) }
    };
    let taps: Vec<Tap> = observed.into_iter().map(tap).collect();
    let (from, to) = (Cut::start(), Cut::start());
    let segment = segment(model, &[], &wanted);
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { all() } else { threads };
    let threads = threads.min(batches.samples().div_ceil(batches.batch())).max(1);
    let sessions = sessions::open(Some(&segment), files, runtime, threads)?;
    let part = Part { segment: &segment, from: &from, to: &to };
    Wave { part, float: None, taps }.run(sessions, batches, ctx)?;
    files.check_unchanged()?;
    Ok(())
}
