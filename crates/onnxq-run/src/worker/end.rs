//! Limits of this process, and its end.

use std::io;

/// Lets this process have only so much memory of its own, and leave no image of itself behind when it
/// crashes.
#[cfg(unix)]
pub(super) fn limit(memory: Option<u64>) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let at_most = |it: u64| Rlimit { current: Some(it), maximum: Some(it) };
    setrlimit(Resource::Core, at_most(0))?;
    if let Some(memory) = memory {
        setrlimit(Resource::Data, at_most(memory))?;
    }
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn limit(_: Option<u64>) -> io::Result<()> {
    Ok(())
}

/// Ends this process at once, whatever its other threads do: destructors of libraries would wait for them.
#[cfg(unix)]
pub(super) fn now() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    // Cannot fail: it is our own.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::exit(1)
}

#[cfg(not(unix))]
pub(super) fn now() -> ! {
    std::process::exit(1)
}
