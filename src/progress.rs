//! What a program that uses the library can be told while a long step runs.

use onnxq_ir::{ctx, diag::Warning};

/// Receives the progress of long steps. The library itself never prints.
pub trait Progress: Sync {
    /// A task begins. `total` is in the unit that [`Progress::step`] counts, 0 if unknown.
    fn start(&self, _task: &str, _total: u64) {}

    /// So many units more are done.
    fn step(&self, _units: u64) {}

    /// The task ended; `summary` is one line, or empty.
    fn done(&self, _summary: &str) {}

    /// Something that the user should know although it is no error.
    fn warn(&self, _message: &str) {}
}

/// Says nothing.
pub(crate) struct Silent;

impl Progress for Silent {}

/// The same for the crates below.
pub(crate) struct Inner<'a>(pub &'a dyn Progress);

impl ctx::Progress for Inner<'_> {
    fn start(&self, task: &str, total: u64) {
        self.0.start(task, total);
    }

    fn step(&self, units: u64) {
        self.0.step(units);
    }

    fn done(&self, summary: &str) {
        self.0.done(summary);
    }

    fn warn(&self, warning: &Warning) {
        self.0.warn(&warning.to_string());
    }
}
