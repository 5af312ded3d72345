//! Models and their slots: loaded when asked for, kept within a budget of memory, ended when idle.
//!
//! Everything that is known is behind one lock, and what to do about it is decided in one place
//! (`State::next`) after whatever happens.

mod estimate;
mod job;
mod lease;
mod listing;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::UnboundedReceiver, oneshot};

pub(crate) use self::estimate::budget;
use self::{
    estimate::Estimates,
    state::{Grant, ModelState, Phase, Slot, SlotId, State, Step, Waiter},
};
pub(crate) use self::{
    lease::{Lease, gone},
    listing::Listed,
};
use crate::{
    backend::{Backend, Fault},
    config::ModelConfig,
    log::Log,
    metrics::Metrics,
    problem::{Kind, Problem},
};
use onnxq_run::answer::Event;

/// How long a model that could not be loaded is not tried again.
const COOLDOWN: Duration = Duration::from_secs(5);
/// How long a job that was cancelled, and a slot that was told to end, may take for it.
const GRACE: Duration = Duration::from_secs(2);
/// How often memory, idle times and cancelled jobs are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

pub(crate) type Events = UnboundedReceiver<Result<Event, Fault>>;

pub(crate) struct Registry {
    pub models: Vec<ModelConfig>,
    pub metrics: Metrics,
    pub log: Log,
    backend: Box<dyn Backend>,
    estimates: Estimates,
    state: Mutex<State>,
}

impl Registry {
    /// Nothing is loaded yet.
    pub(crate) fn new(
        models: Vec<ModelConfig>,
        backend: Box<dyn Backend>,
        budget: u64,
        state_file: Option<std::path::PathBuf>,
        log: Log,
    ) -> Arc<Registry> {
        let estimates = Estimates::read(state_file, &log);
        let of = |it: &ModelConfig| ModelState {
            slots: it.slots,
            queue: it.queue,
            keep_alive: it.keep_alive,
            need: estimates.of(it, budget),
            failed: None,
            facts: None,
        };
        let state = State {
            budget,
            models: models.iter().map(of).collect(),
            slots: Vec::new(),
            waiters: Vec::new(),
            ids: 0,
            is_leaving: false,
        };
        let metrics = Metrics::default();
        let state = Mutex::new(state);
        Arc::new(Registry { models, metrics, log, backend, estimates, state })
    }

    /// Loads what shall be there before it is asked for, as far as there is room.
    pub(crate) fn preload(self: &Arc<Self>) {
        for (model, config) in self.models.iter().enumerate().filter(|it| it.1.preload) {
            let mut state = self.lock();
            match state.taken() + state.models[model].need <= state.budget {
                true => self.load(&mut state, model),
                false => self.log.warn(&config.name, "there is no room to load it at the start"),
            }
        }
    }

    /// A slot of a model, once it is this request's turn.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        model: usize,
        deadline: Instant,
    ) -> Result<Lease, Problem> {
        let began = Instant::now();
        let mut wait = self.enqueue(model)?;
        let granted = tokio::time::timeout_at(deadline.into(), &mut wait.grant).await;
        self.metrics.waited(&self.models[model].name, began.elapsed());
        match granted {
            Ok(Ok(Ok(grant))) => Ok(Lease::new(self.clone(), grant, began.elapsed())),
            Ok(Ok(Err(problem))) => Err(problem),
            Ok(Err(_)) => Err(Problem::leaving()),
            Err(_) => Err(self.too_late(model)),
        }
    }

    fn enqueue(self: &Arc<Self>, model: usize) -> Result<Wait, Problem> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.is_leaving {
            return Err(Problem::leaving());
        }
        let is_there = state.of(model).any(Slot::is_alive);
        if let Some((left, fault)) = state.failed(model, now).filter(|_| !is_there) {
            return Err(fault.of_load(left));
        }
        if state.is_full(model) {
            let what = "too many requests wait for the model already";
            return Err(Problem::busy("queue_full", what, Duration::from_secs(1)));
        }
        let (grant, receiver) = oneshot::channel();
        state.ids += 1;
        let id = state.ids;
        state.waiters.push(Waiter { id, model, grant });
        self.pump(&mut state);
        Ok(Wait { registry: self.clone(), id, grant: receiver })
    }

    /// Why nobody's turn came.
    fn too_late(&self, model: usize) -> Problem {
        let state = self.lock();
        if state.of(model).next().is_some() {
            return Problem::late();
        }
        let what = "the memory that models may have is in use by requests to other models";
        Problem::busy("out_of_memory", what, Duration::from_secs(5))
    }

    /// Does what there is to do.
    fn pump(self: &Arc<Self>, state: &mut State) {
        while let Some(step) = state.next(Instant::now()) {
            match step {
                Step::Grant { waiter, slot } => grant(state, waiter, slot),
                Step::Load { model } => self.load(state, model),
                Step::Close { slot } => self.close(state, slot),
                Step::Refuse { waiter } => refuse(state, waiter),
            }
        }
    }

    fn load(self: &Arc<Self>, state: &mut State, model: usize) {
        state.ids += 1;
        let id = state.ids;
        let (jobs, receiver) = std::sync::mpsc::channel();
        let need = state.models[model].need;
        state.slots.push(Slot {
            id,
            model,
            phase: Phase::Loading,
            bytes: need,
            seen: 0,
            handle: None,
            jobs: Some(jobs),
            since: Instant::now(),
        });
        if let Err(error) = slot::spawn(self.clone(), id, model, receiver) {
            let fault = Fault::new(crate::backend::Why::Crashed, None, error.to_string());
            self.fail(state, id, fault);
            state.slots.retain(|it| it.id != id);
        }
    }

    fn close(&self, state: &mut State, id: SlotId) {
        let Some(slot) = state.slot(id) else { return };
        slot.phase = Phase::Closing;
        slot.jobs = None;
        slot.since = Instant::now();
        self.metrics.unloaded(&self.models[slot.model].name);
    }

    /// Remembers why a model could not be loaded, and tells those who wait for it.
    fn fail(&self, state: &mut State, id: SlotId, fault: Fault) {
        let Some(slot) = state.slot(id) else { return };
        slot.phase = Phase::Closing;
        slot.jobs = None;
        let model = slot.model;
        self.log.warn(&self.models[model].name, &format!("could not be loaded: {}", fault.detail));
        self.metrics.load_failed(&self.models[model].name);
        let problem = fault.of_load(COOLDOWN);
        state.models[model].failed = Some((Instant::now() + COOLDOWN, fault));
        if state.of(model).any(Slot::is_alive) {
            return;
        }
        for waiter in state.waiters.extract_if(.., |it| it.model == model) {
            drop(waiter.grant.send(Err(problem.clone())));
        }
    }

    /// Looks at what changes by itself: memory, time.
    pub(crate) fn tick(self: &Arc<Self>) {
        let now = Instant::now();
        let mut state = self.lock();
        let dead: Vec<SlotId> =
            state.slots.iter().filter(|it| it.is_dead()).map(|it| it.id).collect();
        for id in dead {
            self.close(&mut state, id);
        }
        for slot in &mut state.slots {
            slot.measure();
            slot.end_if_stuck(now);
        }
        self.pump(&mut state);
    }

    /// Nothing more is begun: who waits is sent away, and what is idle or loading ends.
    pub(crate) fn leave(self: &Arc<Self>) {
        let mut state = self.lock();
        state.is_leaving = true;
        for waiter in std::mem::take(&mut state.waiters) {
            drop(waiter.grant.send(Err(Problem::leaving())));
        }
        let ends: Vec<SlotId> =
            state.slots.iter().filter(|it| !it.is_busy()).map(|it| it.id).collect();
        for id in ends {
            if let Some(slot) = state.slot(id).filter(|it| it.phase == Phase::Loading) {
                slot.kill();
            }
            self.close(&mut state, id);
        }
    }

    /// As if the time after a failed load were over.
    #[cfg(test)]
    pub(crate) fn forget_failures(&self) {
        self.lock().models.iter_mut().for_each(|it| it.failed = None);
    }

    /// Ends whatever is left.
    pub(crate) fn kill_all(&self) {
        for slot in &self.lock().slots {
            slot.kill();
        }
    }

    /// Whether no slot is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().slots.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a slot to a waiter; one that has left leaves it idle.
fn grant(state: &mut State, waiter: u64, slot: SlotId) {
    let Some(at) = state.waiters.iter().position(|it| it.id == waiter) else { return };
    let waiter = state.waiters.remove(at);
    let Some(facts) = state.models[waiter.model].facts.clone() else { return };
    let Some(slot) = state.slot(slot) else { return };
    let Some(jobs) = slot.jobs.clone() else { return };
    let grant = Grant { slot: slot.id, jobs, handle: slot.handle.clone(), facts };
    if waiter.grant.send(Ok(grant)).is_ok() {
        slot.phase = Phase::Busy { is_running: false, is_cancelling: false, kill_at: None };
        slot.since = Instant::now();
    }
}

fn refuse(state: &mut State, waiter: u64) {
    let Some(at) = state.waiters.iter().position(|it| it.id == waiter) else { return };
    let waiter = state.waiters.remove(at);
    let what = "the model alone needs more memory than all models together may have";
    let problem = Problem::new(503, Kind::Overloaded, "E718", what);
    drop(waiter.grant.send(Err(problem)));
}

/// A place in the queue, which is left when nobody waits any more.
struct Wait {
    registry: Arc<Registry>,
    id: u64,
    grant: oneshot::Receiver<Result<Grant, Problem>>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.waiters.retain(|it| it.id != self.id);
        // What was granted in the moment of leaving.
        if let Ok(Ok(grant)) = self.grant.try_recv() {
            state.rest(grant.slot, Instant::now());
        }
        self.registry.pump(&mut state);
    }
}
