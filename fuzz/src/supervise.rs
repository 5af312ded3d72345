//! Keeps a run alive: what ends or stops the process is a finding, and the run goes on.

use std::{
    env, io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    engine::{self, Options},
    state,
};

/// Longer than any input takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs this program again as a worker until the time is over; gives back how many findings ended
/// one, and how many inputs those workers had done.
pub fn supervise(target: &str, options: &Options) -> io::Result<(usize, u64)> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    let (mut deaths, mut lost) = (0, 0);
    for round in 0.. {
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 && round > 0 {
            break;
        }
        let mut worker = worker(target, options, left, round, &path)?;
        let Some(why) = wait(&mut worker, &path)? else { break };
        deaths += 1;
        lost += state::count(&path);
        let Some(input) = state::input(&path) else {
            return Err(io::Error::other(format!("the worker {why} before its first input")));
        };
        let kept = engine::store(&options.findings, &input)?;
        eprintln!("the worker {why}\n  {}", kept.display());
    }
    Ok((deaths, lost))
}

fn worker(
    target: &str,
    options: &Options,
    seconds: u64,
    round: u64,
    state: &Path,
) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(target).arg("--seconds").arg(seconds.to_string());
    command.arg("--seed").arg(options.seed.wrapping_add(round).to_string());
    command.arg("--findings").arg(&options.findings).arg("--state").arg(state);
    if let Some(corpus) = &options.corpus {
        command.arg("--corpus").arg(corpus);
    }
    // Inputs may name files; none of them is the terminal.
    command.stdin(Stdio::null()).spawn()
}

/// Why the worker ended too early, if it did.
fn wait(worker: &mut Child, path: &Path) -> io::Result<Option<String>> {
    let (mut last, mut since) = (u64::MAX, Instant::now());
    loop {
        if let Some(status) = worker.try_wait()? {
            return Ok(death(status));
        }
        let now = state::count(path);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            worker.kill()?;
            worker.wait()?;
            return Ok(Some(format!("hung for {} s", PATIENCE.as_secs())));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn death(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        // It had findings of its own, and said so.
        (Some(0 | 1), _) => None,
        (_, Some(signal)) => Some(format!("was ended by signal {signal}")),
        (code, _) => Some(format!("ended with {code:?}")),
    }
}
