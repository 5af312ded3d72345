//! One pass over the data through one segment of the model.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    CalibrateError,
    cut::Cut,
    observe::{Mask, Tap},
    segment::{Origin, Segment, segment},
};
use crate::data::{
    Batch, Batches, DataError,
    roles::{Role, role},
};
use crate::engine::{EngineError, Session};
use onnxq_ir::{Feed, Model, ValueId, ctx::Ctx, tensor::Tensor};

/// Runs of one part of a model. The wanted values of it are those of `taps`, then those of its `to`.
pub(super) struct Pass<'a, 't> {
    pub part: Part<'a>,
    /// The same part of the float model, where layers before are quantized.
    pub reference: Option<Part<'a>>,
    pub taps: Vec<Tap<'t>>,
}

/// A segment, where it begins, and where it ends.
pub(super) struct Part<'a> {
    pub segment: Segment,
    from: &'a Cut,
    pub to: Cut,
}

/// What runs a part and that of the reference; `None` where there is nothing to run.
pub(super) type Sessions = [Option<Box<dyn Session>>; 2];

/// The data, handed out one batch at a time.
struct Source<'a> {
    batches: &'a mut Batches,
    next: usize,
}

/// Why a sample failed; the first of the data counts, whichever thread was faster.
type Failed = Box<(usize, CalibrateError)>;

impl Pass<'_, '_> {
    /// Runs all batches; each session is a thread of its own.
    pub(super) fn run(
        &self,
        sessions: Vec<Sessions>,
        batches: &mut Batches,
        ctx: &Ctx,
    ) -> Result<(), CalibrateError> {
        batches.rewind();
        let source = Mutex::new(Source { batches, next: 0 });
        let stop = AtomicBool::new(false);
        let (source, stop, count) = (&source, &stop, sessions.len().max(1));
        let results: Vec<Result<(), Failed>> = std::thread::scope(|scope| {
            let spawn = |(at, session)| {
                // Threads begin at different taps, so that they rarely wait for each other.
                let first = at * self.taps.len() / count;
                scope.spawn(move || self.work(session, first, source, stop, ctx))
            };
            let workers: Vec<_> = sessions.into_iter().enumerate().map(spawn).collect();
            let panicked = |it| std::panic::resume_unwind(it);
            workers.into_iter().map(|it| it.join().unwrap_or_else(panicked)).collect()
        });
        let failed = results.into_iter().filter_map(Result::err).min_by_key(|it| it.0);
        failed.map_or(Ok(()), |it| Err(it.1))
    }

    /// Samples one after the other, until none is left or one failed.
    fn work(
        &self,
        mut sessions: Sessions,
        first: usize,
        source: &Mutex<Source>,
        stop: &AtomicBool,
        ctx: &Ctx,
    ) -> Result<(), Failed> {
        while !stop.load(Ordering::Relaxed) {
            let Some((sample, samples, batch)) = take(source) else { break };
            let batch = batch.map_err(CalibrateError::Data);
            let done = batch.and_then(|it| self.sample(sample, &it, &mut sessions, first));
            done.map_err(|err| {
                stop.store(true, Ordering::Relaxed);
                Box::new((sample, err))
            })?;
            ctx.progress.step(samples);
        }
        Ok(())
    }

    fn sample(
        &self,
        sample: usize,
        batch: &Batch,
        [own, reference]: &mut Sessions,
        first: usize,
    ) -> Result<(), CalibrateError> {
        let count = self.taps.len();
        let own = self.part.run(sample, batch, own.as_deref_mut(), count)?;
        let reference = match &self.reference {
            Some(part) => Some(part.run(sample, batch, reference.as_deref_mut(), count)?),
            None => None,
        };
        let mask = mask(batch)?;
        for at in (first..count).chain(0..first) {
            let float = reference.as_ref().map(|it| &it[at]);
            self.taps[at].add(sample, &own[at], float, mask.as_ref())?;
        }
        Ok(())
    }
}

impl<'a> Part<'a> {
    /// From `from` to the values to look at and those that the next pass needs.
    pub(super) fn new(
        model: &Model,
        from: &'a Cut,
        values: &[ValueId],
        live: &[ValueId],
    ) -> Result<Part<'a>, CalibrateError> {
        let segment = segment(model, &from.values, &[values, live].concat());
        let to = Cut::new(live.to_vec()).map_err(CalibrateError::Scratch)?;
        Ok(Part { segment, from, to })
    }

    /// Runs a sample, keeps what later passes need, and returns the first `count` wanted values.
    fn run(
        &self,
        sample: usize,
        batch: &Batch,
        session: Option<&mut (dyn Session + 'static)>,
        count: usize,
    ) -> Result<Vec<Tensor>, CalibrateError> {
        if let Some(name) = self.segment.data().find(|it| !batch.contains_key(*it)) {
            let (name, given) = (name.to_owned(), batch.keys().cloned().collect());
            return Err(EngineError::MissingInput { name, given }.into());
        }
        let cut = self.from.load(sample).map_err(CalibrateError::Scratch)?;
        let fed = |it: &Feed| match it {
            Feed::Input(name) => &batch[&**name],
            Feed::Value(at) => &cut[*at],
        };
        let outputs = match session {
            Some(session) => {
                let names: Vec<String> =
                    session.inputs().iter().map(|it| it.name.clone()).collect();
                let tensors = self.segment.part.feeds.iter().map(fed);
                let given: Vec<(&str, &Tensor)> =
                    names.iter().map(|it| &**it).zip(tensors).collect();
                session.run(&given)?
            }
            None => Vec::new(),
        };
        let wanted = |at: usize| match &self.segment.wanted[at] {
            Origin::Fed(feed) => fed(feed),
            Origin::Computed(at) => &outputs[*at].1,
        };
        let live: Vec<&Tensor> = (count..self.segment.wanted.len()).map(wanted).collect();
        self.to.store(sample, &live).map_err(CalibrateError::Scratch)?;
        Ok((0..count).map(|at| wanted(at).clone()).collect())
    }
}

/// A batch, its place in the data and its samples.
fn take(source: &Mutex<Source>) -> Option<(usize, u64, Result<Batch, DataError>)> {
    let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
    let batch = source.batches.next()?;
    source.next += 1;
    Some((source.next - 1, source.batches.batch() as u64, batch))
}

/// Padding is no data: what the model computes there reaches no output.
pub fn mask(batch: &Batch) -> Result<Option<Mask>, CalibrateError> {
    let mask = batch.iter().find(|(name, _)| role(name) == Some(Role::AttentionMask));
    let Some((name, mask)) = mask else { return Ok(None) };
    let unreadable = |source| CalibrateError::Tensor { value: name.clone(), source };
    Mask::read(mask).map_err(unreadable)
}
