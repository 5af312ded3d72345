//! The thread of a slot: loads the model, does its jobs one after the other, and unloads it.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use super::{
    GRACE, Registry,
    job::Job,
    state::{Phase, Slot, SlotId},
};
use crate::backend::{Fault, Handle, Why};
use onnxq_run::answer::ModelFacts;

pub(super) fn spawn(
    registry: Arc<Registry>,
    id: SlotId,
    model: usize,
    jobs: mpsc::Receiver<Job>,
) -> io::Result<()> {
    let name = format!("slot {id}");
    thread::Builder::new().name(name).spawn(move || {
        let gone = Gone { registry, id };
        gone.run(model, &jobs);
    })?;
    Ok(())
}

/// However the thread ends, its slot is gone then.
struct Gone {
    registry: Arc<Registry>,
    id: SlotId,
}

impl Gone {
    fn run(&self, model: usize, jobs: &mpsc::Receiver<Job>) {
        let (registry, id) = (&self.registry, self.id);
        let config = &registry.models[model];
        let began = Instant::now();
        let started = registry.backend.start(config, &mut |handle| registry.started(id, handle));
        let (mut slot, facts) = match started {
            Ok(slot) => slot,
            Err(fault) => return registry.fail(&mut registry.lock(), id, fault),
        };
        registry.metrics.loaded(&config.name, began.elapsed());
        registry.log.loaded(&config.name, began.elapsed(), &facts);
        registry.loaded(id, facts);
        while let Ok(job) = jobs.recv() {
            if !job.run(&mut *slot, |is_alive| registry.finished(id, is_alive)) {
                break;
            }
        }
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.slots.retain(|it| it.id != self.id);
        self.registry.pump(&mut state);
    }
}

impl Registry {
    /// There is a process now.
    fn started(&self, id: SlotId, handle: Arc<dyn Handle>) {
        let mut state = self.lock();
        let is_leaving = state.is_leaving;
        let Some(slot) = state.slot(id) else { return };
        slot.handle = Some(handle);
        if is_leaving {
            slot.kill();
        }
    }

    /// The model can be asked: what it takes is known from now on.
    fn loaded(self: &Arc<Self>, id: SlotId, facts: ModelFacts) {
        let mut state = self.lock();
        let Some(slot) = state.slot(id).filter(|it| it.is_alive()) else { return };
        let model = slot.model;
        let memory = slot.handle.as_ref().and_then(|it| it.memory());
        if let Some(memory) = memory {
            let cache = facts.bytes_per_token.saturating_mul(facts.context as u64);
            slot.seen = memory.anonymous;
            slot.bytes = memory.anonymous.saturating_add(cache);
            state.models[model].need = memory.anonymous.saturating_add(cache);
        }
        let need = state.models[model].need;
        state.models[model].facts = Some(facts);
        state.models[model].failed = None;
        if need > state.budget {
            let fault =
                Fault::new(Why::Memory, Some(onnxq_ir::diag::Code::E718), "over the budget");
            self.fail(&mut state, id, fault);
        } else {
            state.rest(id, Instant::now());
        }
        self.pump(&mut state);
        drop(state);
        if memory.is_some() {
            self.estimates.remember(&self.models[model], need, &self.log);
        }
    }

    /// A job is done.
    fn finished(self: &Arc<Self>, id: SlotId, is_alive: bool) {
        let mut state = self.lock();
        let Some(slot) = state.slot(id) else { return };
        match &mut slot.phase {
            _ if !is_alive => {
                slot.phase = Phase::Closing;
                slot.jobs = None;
                let model = &self.models[slot.model].name;
                self.metrics.crashed(model);
            }
            Phase::Busy { kill_at: Some(_), is_cancelling: false, .. } => {
                state.rest(id, Instant::now());
            }
            Phase::Busy { is_running, .. } => *is_running = false,
            _ => {}
        }
        self.pump(&mut state);
    }
}

impl Registry {
    /// A process has been told to stop what it did.
    pub(super) fn cancelled(self: &Arc<Self>, id: SlotId) {
        let mut state = self.lock();
        let Some(slot) = state.slot(id) else { return };
        match &mut slot.phase {
            Phase::Busy { is_running: false, .. } => state.rest(id, Instant::now()),
            Phase::Busy { is_cancelling, .. } => *is_cancelling = false,
            _ => {}
        }
        self.pump(&mut state);
    }
}

/// What talks to a process may have to wait for it, and nobody shall wait for that.
pub(super) fn apart(talk: impl FnOnce() + Send + 'static) {
    // Without threads there is nothing to talk with; the time to kill it will come again.
    drop(thread::Builder::new().spawn(talk));
}

impl Slot {
    /// What it takes may be more than what was set aside.
    pub(super) fn measure(&mut self) {
        if let Some(memory) = self.handle.as_ref().and_then(|it| it.memory()) {
            self.seen = memory.anonymous;
            self.bytes = self.bytes.max(memory.anonymous);
        }
    }

    /// Whether its process ended while nobody asked: what had memory has none any more.
    pub(super) fn is_dead(&self) -> bool {
        let has_none = self.handle.as_ref().is_some_and(|it| it.memory().is_none());
        matches!(self.phase, Phase::Idle { .. }) && self.seen > 0 && has_none
    }

    pub(super) fn end_if_stuck(&mut self, now: Instant) {
        let is_stuck = match &mut self.phase {
            Phase::Busy { kill_at: Some(at), .. } if now >= *at => {
                *at = now + GRACE;
                true
            }
            Phase::Closing if now >= self.since + GRACE => {
                self.since = now;
                true
            }
            _ => false,
        };
        if is_stuck {
            self.kill();
        }
    }

    pub(super) fn kill(&self) {
        if let Some(handle) = self.handle.clone() {
            apart(move || handle.kill());
        }
    }
}
