//! What is done next, from facts alone.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::state::{ModelState, Phase, Slot, State, Step, Waiter};
use crate::config::KeepAlive;

const BUSY: Phase = Phase::Busy { is_running: true, is_cancelling: false, kill_at: None };
const IDLE: Phase = Phase::Idle { until: None };

/// Models that need so much, and slots of them: the older they are, the earlier they stand here.
fn state(budget: u64, needs: &[u64], slots: &[(usize, Phase)], waiters: &[usize]) -> State {
    let now = Instant::now();
    let model = |need: &u64| ModelState {
        slots: 1,
        queue: 2,
        keep_alive: KeepAlive::Forever,
        need: *need,
        failed: None,
        facts: None,
    };
    let slot = |(id, (model, phase)): (usize, &(usize, Phase))| Slot {
        id: id as u64,
        model: *model,
        phase: *phase,
        bytes: needs[*model],
        seen: 0,
        handle: None,
        jobs: Some(mpsc::channel().0),
        since: now + Duration::from_millis(id as u64),
    };
    let waiter = |(id, model): (usize, &usize)| Waiter {
        id: id as u64,
        model: *model,
        grant: oneshot::channel().0,
    };
    State {
        budget,
        models: needs.iter().map(model).collect(),
        slots: slots.iter().enumerate().map(slot).collect(),
        waiters: waiters.iter().enumerate().map(waiter).collect(),
        ids: 100,
        is_leaving: false,
    }
}

fn next(state: &State) -> Option<Step> {
    state.next(Instant::now())
}

#[test]
fn whoever_came_first_is_served_first() {
    let needs = [10, 10];
    let of = |slots: &[_], waiters: &[_]| next(&state(20, &needs, slots, waiters));
    assert_eq!(of(&[], &[]), None);
    assert_eq!(of(&[], &[1, 0]), Some(Step::Load { model: 1 }));
    assert_eq!(of(&[(0, IDLE)], &[0]), Some(Step::Grant { waiter: 0, slot: 0 }));
    // What is being loaded is for the first of its model; the second waits for the same slot.
    assert_eq!(of(&[(0, Phase::Loading)], &[0, 0]), None);
    assert_eq!(of(&[(0, Phase::Loading)], &[0, 1]), Some(Step::Load { model: 1 }));
    assert_eq!(of(&[(0, BUSY)], &[0]), None);
}

#[test]
fn room_is_made_by_what_is_idle_longest() {
    let needs = [10, 10, 10];
    let of = |slots: &[_], waiters: &[_]| next(&state(25, &needs, slots, waiters));
    assert_eq!(of(&[(1, IDLE), (0, IDLE)], &[2]), Some(Step::Close { slot: 0 }));
    assert_eq!(of(&[(1, BUSY), (0, IDLE)], &[2]), Some(Step::Close { slot: 1 }));
    assert_eq!(of(&[(1, BUSY), (0, BUSY)], &[2]), None);
    // One that is being unloaded is waited for, and no other is unloaded for the same.
    assert_eq!(of(&[(1, Phase::Closing), (0, IDLE)], &[2]), None);
    // Its room is not given to somebody who came later.
    assert_eq!(of(&[(1, Phase::Closing), (0, BUSY)], &[2, 1]), None);
    // What would not suffice is not unloaded.
    let large = state(25, &[10, 10, 20], &[(0, BUSY), (1, IDLE)], &[2]);
    assert_eq!(next(&large), None);
}

#[test]
fn a_model_that_waits_for_memory_gets_it_before_those_that_came_later() {
    // Both slots have more requests; the third model came before these.
    let full = state(20, &[10, 10, 10], &[(0, IDLE), (1, BUSY)], &[2, 0, 1]);
    assert_eq!(next(&full), Some(Step::Close { slot: 0 }));
    let own = state(20, &[10, 10, 10], &[(0, IDLE), (1, BUSY)], &[0, 2]);
    assert_eq!(next(&own), Some(Step::Grant { waiter: 0, slot: 0 }));
}

#[test]
fn what_took_more_than_was_thought_makes_room() {
    let mut state = state(25, &[10, 10], &[(0, IDLE), (1, IDLE)], &[]);
    assert_eq!(next(&state), None);
    state.slots[1].bytes = 16;
    assert_eq!(next(&state), Some(Step::Close { slot: 0 }));
    state.slots[0].phase = Phase::Closing;
    assert_eq!(next(&state), None);
    let never = self::state(25, &[30], &[], &[0]);
    assert_eq!(next(&never), Some(Step::Refuse { waiter: 0 }));
}

#[test]
fn a_queue_counts_those_who_have_no_slot_coming() {
    let is_full = |slots: &[_], waiters: &[_]| state(20, &[10], slots, waiters).is_full(0);
    assert!(!is_full(&[(0, Phase::Loading)], &[0, 0]));
    assert!(is_full(&[(0, Phase::Loading)], &[0, 0, 0]));
    assert!(!is_full(&[(0, BUSY)], &[0]));
    assert!(is_full(&[(0, BUSY)], &[0, 0]));
}

#[test]
fn idle_slots_end_when_their_time_or_the_server_does() {
    let soon = Phase::Idle { until: Some(Instant::now()) };
    let mut state = state(20, &[10, 10], &[(0, IDLE), (1, soon)], &[]);
    assert_eq!(next(&state), Some(Step::Close { slot: 1 }));
    state.slots[1].phase = Phase::Closing;
    assert_eq!(next(&state), None);
    state.is_leaving = true;
    assert_eq!(next(&state), Some(Step::Close { slot: 0 }));
}
