//! What is loaded, for those who ask.

use std::time::Instant;

use super::{
    Registry,
    state::{Phase, Slot},
};
use onnxq_run::answer::ModelFacts;

/// A model, and what there is of it now.
pub(crate) struct Listed {
    pub facts: Option<ModelFacts>,
    /// Slots that are being loaded, idle, busy and being unloaded.
    pub phases: [usize; 4],
    pub waiting: usize,
    /// Bytes that its processes keep.
    pub resident: u64,
    /// Bytes that are set aside for them.
    pub reserved: u64,
    /// Seconds until the last slot is unloaded, if nobody asks; `None`: it stays, or is in use.
    pub expires: Option<f64>,
    pub failed: bool,
}

impl Registry {
    /// In the order of the configuration.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let now = Instant::now();
        let state = self.lock();
        let listed = |model: usize| {
            let slots: Vec<&Slot> = state.of(model).collect();
            let mut phases = [0; 4];
            slots.iter().for_each(|it| phases[place(it.phase)] += 1);
            let until = |it: &&Slot| match it.phase {
                Phase::Idle { until } => until.map(|it| it.saturating_duration_since(now)),
                _ => None,
            };
            let all_idle = phases[0] + phases[2] == 0;
            let last = slots.iter().filter_map(until).max().filter(|_| all_idle);
            Listed {
                facts: state.models[model].facts.clone(),
                phases,
                waiting: state.waiting(model),
                resident: slots.iter().map(|it| it.seen).sum(),
                reserved: slots.iter().map(|it| it.bytes).sum(),
                expires: last.map(|it| it.as_secs_f64()),
                failed: state.failed(model, now).is_some(),
            }
        };
        (0..self.models.len()).map(listed).collect()
    }

    pub(crate) fn budget(&self) -> u64 {
        self.lock().budget
    }

    /// Whether what shall be there from the start is there.
    pub(crate) fn is_ready(&self) -> bool {
        let state = self.lock();
        let mut wanted = self.models.iter().enumerate().filter(|it| it.1.preload);
        let is_there = |model: usize| state.models[model].facts.is_some();
        !state.is_leaving && wanted.all(|(model, _)| is_there(model))
    }
}

fn place(phase: Phase) -> usize {
    match phase {
        Phase::Loading => 0,
        Phase::Idle { .. } => 1,
        Phase::Busy { .. } => 2,
        Phase::Closing => 3,
    }
}
