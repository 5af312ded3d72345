//! What a long step needs besides its input: progress, limits, tracing. Explicit, no globals.

use std::sync::Mutex;

use crate::diag::Warning;

/// Receives the progress of long steps; the library never prints.
pub trait Progress: Sync {
    /// A task begins; `total` is in the unit that `step` counts, 0 if unknown.
    fn start(&self, task: &str, total: u64);
    fn step(&self, n: u64);
    /// How far the task has come, in words; the latest counts.
    fn tell(&self, _: &str) {}
    /// The task ended; `summary` is one line for the log, or empty.
    fn done(&self, summary: &str);
    /// Something the user should know although it is no error.
    fn warn(&self, warning: &Warning);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64) {}
    fn step(&self, _: u64) {}
    fn done(&self, _: &str) {}
    fn warn(&self, _: &Warning) {}
}

pub struct Ctx<'a> {
    pub progress: &'a dyn Progress,
    /// Collects a line for each rule that fired or missed, if tracing.
    pub trace: Option<&'a Mutex<Vec<String>>>,
    /// Stop rewriting after this many patches: bisects a bad rule.
    pub max_rewrites: usize,
}

impl Ctx<'_> {
    pub fn silent() -> Ctx<'static> {
        Ctx { progress: &Silent, trace: None, max_rewrites: usize::MAX }
    }
}
