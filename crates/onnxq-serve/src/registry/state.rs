//! Who waits for what, what is loaded, and what is to be done next: facts and one pure decision.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::job::Job;
use crate::{
    backend::{Fault, Handle},
    config::KeepAlive,
    problem::Problem,
};
use onnxq_run::answer::ModelFacts;

pub(super) type SlotId = u64;

pub(super) struct State {
    /// Bytes that all slots together may keep.
    pub budget: u64,
    /// As configured, in that order.
    pub models: Vec<ModelState>,
    pub slots: Vec<Slot>,
    /// In the order in which they came.
    pub waiters: Vec<Waiter>,
    /// Ids that were given away.
    pub ids: u64,
    /// Nothing is begun any more.
    pub is_leaving: bool,
}

pub(super) struct ModelState {
    pub slots: usize,
    pub queue: usize,
    pub keep_alive: KeepAlive,
    /// What a slot takes: measured, or guessed before the first one was loaded.
    pub need: u64,
    /// Why the last load failed, and until when none is tried.
    pub failed: Option<(Instant, Fault)>,
    pub facts: Option<ModelFacts>,
}

pub(super) struct Slot {
    pub id: SlotId,
    pub model: usize,
    pub phase: Phase,
    /// What is set aside for it: its memory after loading and its full cache, or what it has taken.
    pub bytes: u64,
    /// What it was last seen to keep.
    pub seen: u64,
    pub handle: Option<Arc<dyn Handle>>,
    /// The way to its thread; without it the thread ends.
    pub jobs: Option<mpsc::Sender<Job>>,
    /// When it last became what it is.
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Loading,
    /// `None`: stays.
    Idle {
        until: Option<Instant>,
    },
    Busy {
        /// A job is being done.
        is_running: bool,
        /// It is being told to stop, and must not begin another before it has heard.
        is_cancelling: bool,
        /// Whoever had it has left; the process is ended if the job does not end by itself.
        kill_at: Option<Instant>,
    },
    /// Its thread has been told to end.
    Closing,
}

pub(super) struct Waiter {
    pub id: u64,
    pub model: usize,
    pub grant: oneshot::Sender<Result<Grant, Problem>>,
}

/// What a waiter gets.
pub(super) struct Grant {
    pub slot: SlotId,
    pub jobs: mpsc::Sender<Job>,
    pub handle: Option<Arc<dyn Handle>>,
    pub facts: ModelFacts,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The waiter with this id gets this slot.
    Grant { waiter: u64, slot: SlotId },
    /// This model gets one more slot.
    Load { model: usize },
    /// Unload.
    Close { slot: SlotId },
    /// Alone it would take more than everything may take together.
    Refuse { waiter: u64 },
}

impl Slot {
    fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle { .. })
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy { .. })
    }

    /// Loaded, or about to be.
    pub(super) fn is_alive(&self) -> bool {
        self.phase != Phase::Closing
    }
}

impl State {
    pub(super) fn slot(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|it| it.id == id)
    }

    pub(super) fn of(&self, model: usize) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |it| it.model == model)
    }

    /// What is set aside.
    pub(super) fn taken(&self) -> u64 {
        self.slots.iter().map(|it| it.bytes).sum()
    }

    pub(super) fn waiting(&self, model: usize) -> usize {
        self.waiters.iter().filter(|it| it.model == model).count()
    }

    /// Those that a slot will be there for soon do not count as queued.
    pub(super) fn is_full(&self, model: usize) -> bool {
        let own = &self.models[model];
        let busy = self.of(model).filter(|it| it.is_busy()).count();
        self.waiting(model) >= own.queue + own.slots.saturating_sub(busy)
    }

    /// Whether loading is not tried, and until when.
    pub(super) fn failed(&self, model: usize, now: Instant) -> Option<(Duration, &Fault)> {
        let (until, fault) = self.models[model].failed.as_ref()?;
        (*until > now).then(|| (*until - now, fault))
    }

    /// A slot that nobody has any more.
    pub(super) fn rest(&mut self, id: SlotId, now: Instant) {
        let keep = self.slot(id).map(|it| it.model).map(|it| self.models[it].keep_alive);
        let until = match keep {
            Some(KeepAlive::For(time)) => Some(now + time),
            _ => None,
        };
        if let Some(slot) = self.slot(id) {
            slot.phase = Phase::Idle { until };
            slot.since = now;
        }
    }

    /// What is to be done next; asked again until there is nothing.
    pub(super) fn next(&self, now: Instant) -> Option<Step> {
        self.over_budget().or_else(|| self.serve(now)).or_else(|| self.expired(now))
    }

    /// What was loaded may be more than was thought.
    fn over_budget(&self) -> Option<Step> {
        let stays: u64 = self.slots.iter().filter(|it| it.is_alive()).map(|it| it.bytes).sum();
        (stays > self.budget).then(|| self.oldest_idle()).flatten()
    }

    fn oldest_idle(&self) -> Option<Step> {
        let idle = self.slots.iter().filter(|it| it.is_idle());
        idle.min_by_key(|it| it.since).map(|it| Step::Close { slot: it.id })
    }

    /// The first in the order of arrival for whom something can be done.
    fn serve(&self, now: Instant) -> Option<Step> {
        // Slots that are being loaded are for those who came first.
        let mut coming: BTreeMap<usize, usize> = BTreeMap::new();
        for slot in self.slots.iter().filter(|it| it.phase == Phase::Loading) {
            *coming.entry(slot.model).or_default() += 1;
        }
        // Memory that older waiters wait for is not given to younger ones.
        let mut free = self.budget.saturating_sub(self.taken());
        for waiter in &self.waiters {
            if let Some(slot) = self.of(waiter.model).find(|it| it.is_idle()) {
                return Some(Step::Grant { waiter: waiter.id, slot: slot.id });
            }
            if let Some(left) = coming.get_mut(&waiter.model).filter(|it| **it > 0) {
                *left -= 1;
                continue;
            }
            match self.room(waiter.model, free, now) {
                Room::Now => return Some(Step::Load { model: waiter.model }),
                Room::Never => return Some(Step::Refuse { waiter: waiter.id }),
                Room::AfterOne => return self.oldest_idle(),
                Room::Soon => free = free.saturating_sub(self.models[waiter.model].need),
                Room::NotYet => {}
            }
        }
        None
    }

    /// Whether one more slot of a model can be loaded.
    fn room(&self, model: usize, free: u64, now: Instant) -> Room {
        let own = &self.models[model];
        let alive = self.of(model).filter(|it| it.is_alive()).count();
        if self.is_leaving || alive >= own.slots || self.failed(model, now).is_some() {
            return Room::NotYet;
        }
        let sum = |is: fn(&Slot) -> bool| -> u64 {
            self.slots.iter().filter(|it| is(it)).map(|it| it.bytes).sum()
        };
        let (closing, idle) = (sum(|it| !it.is_alive()), sum(Slot::is_idle));
        match own.need {
            need if need > self.budget => Room::Never,
            need if need <= free => Room::Now,
            need if need <= free + closing => Room::Soon,
            need if need <= free + closing + idle => Room::AfterOne,
            _ => Room::NotYet,
        }
    }

    fn expired(&self, now: Instant) -> Option<Step> {
        let is_over = |it: &&Slot| match it.phase {
            Phase::Idle { until } => self.is_leaving || until.is_some_and(|it| it <= now),
            _ => false,
        };
        self.slots.iter().find(is_over).map(|it| Step::Close { slot: it.id })
    }
}

enum Room {
    Now,
    /// Once an idle slot is unloaded.
    AfterOne,
    /// Once those are gone that are being unloaded.
    Soon,
    NotYet,
    Never,
}
