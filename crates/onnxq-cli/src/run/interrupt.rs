//! Ctrl-C in a conversation: it ends an answer, and twice at an empty prompt the program.

use std::{
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use onnxq_run::engine::Stop;

/// What an interrupt means now.
#[derive(Clone, Default)]
pub(super) struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    /// The answer under way.
    answer: Mutex<Option<Stop>>,
    /// There was one at this prompt already.
    asked: AtomicBool,
}

/// What came of an interrupt.
#[derive(PartialEq, Eq, Debug)]
enum Means {
    Stopped,
    Warned,
    Leave,
}

impl Interrupt {
    /// Listens from now on. Without that, an interrupt ends the program.
    pub(super) fn listen() -> Interrupt {
        let interrupt = Interrupt::default();
        let own = interrupt.clone();
        // Fails only if someone listens already.
        let _ = ctrlc::set_handler(move || match own.come() {
            Means::Stopped => {}
            Means::Warned => {
                let _ = write!(std::io::stderr(), "\n(once more, or /exit, to leave)\n> ");
            }
            Means::Leave => {
                let _ = writeln!(std::io::stderr());
                std::process::exit(0);
            }
        });
        interrupt
    }

    /// An answer begins: what stops it.
    pub(super) fn begin(&self) -> Stop {
        let stop = Stop::default();
        *self.answer() = Some(stop.clone());
        stop
    }

    /// The answer is over, and a new prompt is empty.
    pub(super) fn end(&self) {
        *self.answer() = None;
        self.0.asked.store(false, Ordering::SeqCst);
    }

    fn come(&self) -> Means {
        if let Some(stop) = &*self.answer() {
            stop.stop();
            return Means::Stopped;
        }
        match self.0.asked.swap(true, Ordering::SeqCst) {
            true => Means::Leave,
            false => Means::Warned,
        }
    }

    fn answer(&self) -> std::sync::MutexGuard<'_, Option<Stop>> {
        self.0.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_stopped_and_a_prompt_left() {
        let interrupt = Interrupt::default();
        let stop = interrupt.begin();
        assert_eq!(interrupt.come(), Means::Stopped);
        assert!(stop.is_stopped());
        interrupt.end();
        assert_eq!((interrupt.come(), interrupt.come()), (Means::Warned, Means::Leave));
        interrupt.end();
        assert_eq!(interrupt.come(), Means::Warned);
        assert!(!interrupt.begin().is_stopped());
    }
}
