//! Ending a run from outside.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

type Hook = Box<dyn Fn() + Send>;

/// Says to a run, and to whoever makes runs one after the other, that nobody waits for it any more.
/// Copies are the same one.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicBool,
    /// How the run under way is told, inside an operator even.
    hook: Mutex<Option<Hook>>,
}

impl Stop {
    /// Ends what runs, and everything that would run later.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        if let Some(hook) = &*self.hook() {
            hook();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Calls `hook` when a stop is asked for while it is the newest one; at once if it was already.
    pub fn on_stop(&self, hook: impl Fn() + Send + 'static) {
        let mut place = self.hook();
        if self.is_stopped() {
            hook();
        }
        *place = Some(Box::new(hook));
    }

    fn hook(&self) -> std::sync::MutexGuard<'_, Option<Hook>> {
        self.0.hook.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_hook_is_called_whether_it_comes_before_or_after() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = || {
            let calls = calls.clone();
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let stop = Stop::default();
        stop.on_stop(count());
        assert!(!stop.is_stopped());
        stop.clone().stop();
        assert!(stop.is_stopped());
        stop.on_stop(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}
