//! A slot that one request has: what it asks of it, and what happens when it leaves.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Events, GRACE, Registry,
    job::Job,
    slot::apart,
    state::{Grant, Phase, SlotId},
};
use crate::{
    backend::{Fault, Handle, Why},
    problem::Problem,
};
use onnxq_run::answer::{Generate, Labelled, ModelFacts, Vectors};

/// Dropped, it ends what is still being computed and gives the slot back.
pub(crate) struct Lease {
    pub facts: ModelFacts,
    /// How long the request waited, for others or for the model to be loaded.
    pub waited: Duration,
    registry: Arc<Registry>,
    slot: SlotId,
    jobs: mpsc::Sender<Job>,
    handle: Option<Arc<dyn Handle>>,
}

impl Lease {
    pub(super) fn new(registry: Arc<Registry>, grant: Grant, waited: Duration) -> Lease {
        let Grant { slot, jobs, handle, facts } = grant;
        Lease { facts, waited, registry, slot, jobs, handle }
    }

    /// Whoever waits no longer cancels; that the slot ends a job by force is for jobs that go on.
    /// Events of an answer; the last one is its end or a fault.
    pub(crate) fn generate(&self, request: Generate, until: Instant) -> Events {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        self.start(Job::Generate(request, until + GRACE, sender));
        events
    }

    pub(crate) async fn embed(
        &self,
        texts: Vec<String>,
        until: Instant,
    ) -> Result<Vectors, Problem> {
        let (sender, answer) = oneshot::channel();
        self.start(Job::Embed(texts, until + GRACE, sender));
        answered(answer, until).await
    }

    pub(crate) async fn classify(
        &self,
        texts: Vec<String>,
        until: Instant,
    ) -> Result<Vec<Labelled>, Problem> {
        let (sender, answer) = oneshot::channel();
        self.start(Job::Classify(texts, until + GRACE, sender));
        answered(answer, until).await
    }

    fn start(&self, job: Job) {
        let mut state = self.registry.lock();
        if let Some(slot) = state.slot(self.slot).filter(|it| it.is_busy()) {
            slot.phase = Phase::Busy { is_running: true, is_cancelling: false, kill_at: None };
        }
        // A thread that has ended leaves the job's channel closed, which its reader sees.
        drop(self.jobs.send(job));
    }
}

async fn answered<T>(
    answer: oneshot::Receiver<Result<T, Fault>>,
    until: Instant,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(until.into(), answer).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(fault))) => Err(fault.of_request()),
        Ok(Err(_)) => Err(gone()),
        Err(_) => Err(Problem::late()),
    }
}

/// The slot's thread ended without an answer.
pub(crate) fn gone() -> Problem {
    Fault::new(Why::Crashed, None, "the thread of the slot ended").of_request()
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.registry.lock();
        let Some(slot) = state.slot(self.slot) else { return };
        match slot.phase {
            Phase::Busy { is_running: true, .. } => {
                let kill_at = Some(now + GRACE);
                let is_cancelling = self.handle.is_some();
                slot.phase = Phase::Busy { is_running: true, is_cancelling, kill_at };
                let (registry, id) = (self.registry.clone(), self.slot);
                if let Some(handle) = self.handle.take() {
                    apart(move || {
                        handle.cancel();
                        registry.cancelled(id);
                    });
                }
            }
            Phase::Busy { .. } => {
                state.rest(self.slot, now);
                self.registry.pump(&mut state);
            }
            _ => {}
        }
    }
}
