//! What a slot's thread is asked to do, and how it is done.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Fault, Slot, Why};
use onnxq_run::answer::{Event, Generate, Labelled, Vectors};

/// Each has the time until which somebody waits.
pub(super) enum Job {
    Generate(Generate, Instant, mpsc::UnboundedSender<Result<Event, Fault>>),
    Embed(Vec<String>, Instant, oneshot::Sender<Result<Vectors, Fault>>),
    Classify(Vec<String>, Instant, oneshot::Sender<Result<Vec<Labelled>, Fault>>),
}

impl Job {
    /// Does it. `finished` hears whether the slot can be asked again, before anybody hears the end of
    /// the answer: who has heard it may ask at once.
    pub(super) fn run(self, slot: &mut dyn Slot, finished: impl FnOnce(bool)) -> bool {
        match self {
            Job::Generate(request, until, out) => {
                let mut done = None;
                let result = caught(|| {
                    slot.generate(&request, left(until), &mut |event| match event {
                        Event::Done { .. } => done = Some(event),
                        text => drop(out.send(Ok(text))),
                    })
                });
                let alive = ends(&result, finished);
                let last = match (result, done) {
                    (Err(fault), _) => Err(fault),
                    (Ok(()), Some(event)) => Ok(event),
                    (Ok(()), None) => Err(Fault::new(Why::Crashed, None, "the answer has no end")),
                };
                // Nobody may listen any more.
                drop(out.send(last));
                alive
            }
            Job::Embed(texts, until, out) => {
                let result = caught(|| slot.embed(&texts, left(until)));
                let alive = ends(&result, finished);
                drop(out.send(result));
                alive
            }
            Job::Classify(texts, until, out) => {
                let result = caught(|| slot.classify(&texts, left(until)));
                let alive = ends(&result, finished);
                drop(out.send(result));
                alive
            }
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// A panic in one slot is a fault of that slot.
fn caught<T>(run: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Fault::new(Why::Crashed, None, "a bug of onnxq: a thread panicked"))
    })
}

fn ends<T>(result: &Result<T, Fault>, finished: impl FnOnce(bool)) -> bool {
    let alive = result.as_ref().err().is_none_or(Fault::spares_the_slot);
    finished(alive);
    alive
}
