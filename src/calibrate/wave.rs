//! One pass over the data through one segment of the model.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use ndarray::ArrayView2;

use super::{
    Batch, Batches, CalibrateError,
    cut::Cut,
    roles::{Role, role},
    segment::{Origin, Segment},
};
use crate::{ctx::Ctx, engine::Session, quant::moments::Moments, tensor::Tensor};

/// A value that is observed.
pub struct Tap {
    pub name: String,
    pub k: usize,
    pub moments: Mutex<Moments>,
}

/// The segment's wanted values are those of `taps`, then those of `to`.
pub struct Wave<'a> {
    pub segment: &'a Segment,
    pub from: &'a Cut,
    pub to: &'a Cut,
    pub taps: Vec<Tap>,
}

/// The data, handed out one batch at a time.
struct Source<'a> {
    batches: &'a mut Batches,
    next: usize,
}

/// Why a sample failed; the first of the data counts, whichever thread was faster.
type Failed = (usize, CalibrateError);

impl Wave<'_> {
    /// Runs all batches; each session is a thread of its own.
    pub fn run(
        &self,
        sessions: Vec<Option<Box<dyn Session>>>,
        batches: &mut Batches,
        ctx: &Ctx,
    ) -> Result<(), CalibrateError> {
        batches.rewind();
        let samples = batches.batch() as u64;
        let source = Mutex::new(Source { batches, next: 0 });
        let stop = AtomicBool::new(false);
        let work = |first: usize, mut session: Option<Box<dyn Session>>| -> Result<(), Failed> {
            while !stop.load(Ordering::Relaxed) {
                let Some((sample, batch)) = take(&source) else { break };
                let run = || self.sample(sample, &batch?, session.as_deref_mut(), first);
                run().map_err(|err| {
                    stop.store(true, Ordering::Relaxed);
                    (sample, err)
                })?;
                ctx.progress.step(samples);
            }
            Ok(())
        };
        let work = &work;
        let count = sessions.len().max(1);
        let results: Vec<Result<(), Failed>> = std::thread::scope(|scope| {
            let spawn = |(at, session)| {
                let first = at * self.taps.len() / count;
                scope.spawn(move || work(first, session))
            };
            let workers: Vec<_> = sessions.into_iter().enumerate().map(spawn).collect();
            let join = |it: std::thread::ScopedJoinHandle<'_, _>| {
                it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(join).collect()
        });
        let failed = results.into_iter().filter_map(Result::err).min_by_key(|it| it.0);
        failed.map_or(Ok(()), |it| Err(it.1))
    }

    fn sample(
        &self,
        sample: usize,
        batch: &Batch,
        session: Option<&mut (dyn Session + 'static)>,
        first: usize,
    ) -> Result<(), CalibrateError> {
        let cut = self.from.load(sample)?;
        let data = |at: usize| &batch[&self.segment.data[at]];
        let outputs = match session {
            Some(session) => {
                let names: Vec<String> =
                    session.inputs().iter().map(|it| it.name.clone()).collect();
                let tensor = |it: &Origin| match *it {
                    Origin::Data(at) => data(at),
                    Origin::Cut(at) | Origin::Run(at) => &cut[at],
                };
                let tensors = self.segment.inputs.iter().map(tensor);
                let given: Vec<(&str, &Tensor)> =
                    names.iter().map(|it| &**it).zip(tensors).collect();
                session.run(&given)?
            }
            None => Vec::new(),
        };
        let wanted = |at: usize| match self.segment.wanted[at] {
            Origin::Data(at) => data(at),
            Origin::Cut(at) => &cut[at],
            Origin::Run(at) => &outputs[at].1,
        };
        // Threads begin at different taps, so that they rarely wait for each other.
        let count = self.taps.len();
        for at in (first..count).chain(0..first) {
            self.taps[at].add(wanted(at), mask(batch))?;
        }
        let live: Vec<&Tensor> = (count..self.segment.wanted.len()).map(wanted).collect();
        Ok(self.to.store(sample, &live)?)
    }
}

fn take(source: &Mutex<Source>) -> Option<(usize, Result<Batch, super::DataError>)> {
    let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
    let batch = source.batches.next()?;
    source.next += 1;
    Some((source.next - 1, batch))
}

fn mask(batch: &Batch) -> Option<&Tensor> {
    let mask = batch.iter().find(|(name, _)| role(name) == Some(Role::AttentionMask));
    mask.map(|it| it.1)
}

impl Tap {
    fn add(&self, tensor: &Tensor, mask: Option<&Tensor>) -> Result<(), CalibrateError> {
        let unreadable = |source| CalibrateError::Tensor { value: self.name.clone(), source };
        let (k, shape) = (self.k, &tensor.shape);
        if shape.len() < 2 || shape.last() != Some(&k) {
            let (value, actual) = (self.name.clone(), shape.clone());
            return Err(CalibrateError::Width { value, actual, expected: k });
        }
        let mut values = tensor.to_f32().map_err(unreadable)?;
        // Padding is no data: what the model computes there reaches no output.
        let mask = mask.filter(|it| it.shape.len() == 2 && shape.len() > 2);
        if let Some(mask) = mask.filter(|it| it.shape == shape[..2]) {
            let mask = mask.to_i64().or_else(|_| as_flags(mask)).map_err(unreadable)?;
            values = unmasked(values, &mask);
        }
        let rows = values.len() / k.max(1);
        let view = ArrayView2::from_shape((rows, k), &values).expect("whole rows");
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |source| CalibrateError::NonFinite { value: self.name.clone(), source };
        moments.add(view).map_err(bad)
    }
}

/// A mask of floats, as some exporters make it.
fn as_flags(mask: &Tensor) -> Result<Vec<i64>, crate::tensor::TensorError> {
    Ok(mask.to_f32()?.into_iter().map(|it| i64::from(it != 0.0)).collect())
}

/// The values of each token whose flag is not 0.
fn unmasked(values: Vec<f32>, mask: &[i64]) -> Vec<f32> {
    if mask.iter().all(|it| *it != 0) {
        return values;
    }
    let each = (values.len() / mask.len().max(1)).max(1);
    let tokens = values.chunks_exact(each).zip(mask).filter(|it| *it.1 != 0);
    tokens.flat_map(|it| it.0.iter().copied()).collect()
}
