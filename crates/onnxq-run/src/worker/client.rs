//! A worker as its parent sees it: started, asked, told to stop, killed, looked at.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::{self, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Answer, COMMAND, Memory, Refusal, Request,
    channel::{self, Frame, Sender},
    protocol::Numbered,
};
use crate::answer::Event;
use onnxq_ir::{
    diag::{Code, Diagnostic},
    untrusted::escape,
};

/// How a worker is started.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// The program of which it is a process.
    pub program: PathBuf,
    /// Memory of its own that it may have, in bytes; `None`: no limit. Mapped files do not count.
    pub memory: Option<u64>,
    /// Variables of its environment beside those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// Memory that glibc's allocator gives out lies in pages of 2 MiB, where the system gives them to those
/// who ask (`madvise`). Elsewhere the variable means nothing.
const LARGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

impl WorkerOptions {
    /// The same for a model that answers: each token reads all weights, with fewer misses from large
    /// pages.
    pub fn in_large_pages(mut self) -> WorkerOptions {
        let (name, value) = LARGE_PAGES;
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("a process of its own could not be run: {0}")]
    Io(#[from] io::Error),
    #[error("the process took longer than {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("the process {}{}", ended(.status), said(.stderr))]
    Died { status: ExitStatus, stderr: String },
    #[error("the process said something else: {}", escape(.0.trim()))]
    Garbled(String),
    #[error("the process failed ({}): {}", escape(&.0.code), escape(&.0.message))]
    Refused(Refusal),
}

/// How a process ended, for people.
fn ended(status: &ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was killed ({status})"),
    }
}

/// What it had written to standard error.
fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!(": {}", escape(text)),
    }
}

impl Diagnostic for WorkerError {
    fn code(&self) -> Code {
        match self {
            WorkerError::Refused(it) => it.code.parse().unwrap_or(Code::E803),
            WorkerError::Io(_) => Code::E902,
            WorkerError::Timeout(_) => Code::E808,
            WorkerError::Died { .. } | WorkerError::Garbled(_) => Code::E806,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            WorkerError::Refused(it) => it.hint.clone(),
            _ => None,
        }
    }
}

/// A child process that waits for requests. It ends with this value.
pub struct Worker {
    process: Handle,
    frames: mpsc::Receiver<io::Result<Frame>>,
}

/// What may be done to a worker while it is asked, from any thread. Copies are of the same one.
#[derive(Clone)]
pub struct Handle(Arc<Process>);

struct Process {
    id: u32,
    child: Mutex<Child>,
    sender: Mutex<Sender>,
    /// Of the newest request.
    number: AtomicU64,
    stderr: Arc<Mutex<VecDeque<u8>>>,
}

/// Of what a worker writes to standard error, the last bytes that are kept.
const KEPT: usize = 4 << 10;
/// How long an end is waited for once a worker says nothing more.
const REST: Duration = Duration::from_secs(5);

impl Worker {
    /// Starts a process that knows nothing yet.
    pub fn start(options: &WorkerOptions) -> Result<Worker, WorkerError> {
        let mut command = Command::new(&options.program);
        command.args([COMMAND, "--quiet", "--color", "never", "--offline"]);
        if let Some(memory) = options.memory {
            command.args(["--limit", &memory.to_string()]);
        }
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        Worker::of(command)
    }

    fn of(mut command: Command) -> Result<Worker, WorkerError> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let (mut child, sender, mut receiver) = channel::spawn(command)?;
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(pipe) = child.stderr.take() {
            let kept = stderr.clone();
            thread::spawn(move || keep_end(pipe, &kept));
        }
        let (frame, frames) = mpsc::channel();
        thread::spawn(move || {
            while let Some(it) = receiver.receive().transpose() {
                let is_last = it.is_err();
                if frame.send(it).is_err() || is_last {
                    return;
                }
            }
        });
        let process = Process {
            id: child.id(),
            child: Mutex::new(child),
            sender: Mutex::new(sender),
            number: AtomicU64::new(0),
            stderr,
        };
        Ok(Worker { process: Handle(Arc::new(process)), frames })
    }

    pub fn handle(&self) -> Handle {
        self.process.clone()
    }

    /// Asks, and waits for the answer. After `limit` the process is killed.
    pub fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, WorkerError> {
        self.ask_with(request, &[], limit).map(|it| it.0)
    }

    /// The same with bytes beside the request, and those beside the answer.
    pub(super) fn ask_with(
        &mut self,
        request: &Request,
        parts: &[Bytes],
        limit: Duration,
    ) -> Result<(Answer, Bytes), WorkerError> {
        let end = Instant::now() + limit;
        let number = self.send(request, parts)?;
        match self.answer(number, end, limit)? {
            (Answer::Refused(it), _) => Err(WorkerError::Refused(it)),
            answer => Ok(answer),
        }
    }

    /// Asks what is answered piece by piece. After `limit` the process is killed.
    pub fn stream(
        &mut self,
        request: &Request,
        limit: Duration,
        each: &mut dyn FnMut(Event),
    ) -> Result<(), WorkerError> {
        let end = Instant::now() + limit;
        let number = self.send(request, &[])?;
        loop {
            match self.answer(number, end, limit)?.0 {
                Answer::Event(event) => {
                    let is_last = matches!(event, Event::Done { .. });
                    each(event);
                    if is_last {
                        return Ok(());
                    }
                }
                Answer::Refused(it) => return Err(WorkerError::Refused(it)),
                other => return Err(garbled(&other)),
            }
        }
    }

    /// The number that the next request will have.
    pub(super) fn next_number(&self) -> u64 {
        self.process.0.number.load(SeqCst) + 1
    }

    /// Whether the process is there still.
    pub fn is_alive(&self) -> bool {
        matches!(lock(&self.process.0.child).try_wait(), Ok(None))
    }

    /// Asks without waiting for an answer.
    pub(super) fn send(&mut self, request: &Request, parts: &[Bytes]) -> Result<u64, WorkerError> {
        let number = self.process.0.number.fetch_add(1, SeqCst) + 1;
        let head = serde_json::to_vec(&Numbered { number, body: request });
        let head = head.map_err(io::Error::from)?;
        let sent = lock(&self.process.0.sender).send(&head, parts);
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.died(),
            _ => WorkerError::Io(error),
        })?;
        Ok(number)
    }

    /// The next answer to a request; what is left of earlier ones is dropped.
    fn answer(
        &mut self,
        number: u64,
        end: Instant,
        limit: Duration,
    ) -> Result<(Answer, Bytes), WorkerError> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let frame = match self.frames.recv_timeout(left) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => {
                    self.process.kill();
                    return Err(WorkerError::Timeout(limit));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
            };
            let frame = frame.map_err(|error| {
                self.process.kill();
                WorkerError::Garbled(error.to_string())
            })?;
            let text = || String::from_utf8_lossy(&frame.head[..frame.head.len().min(200)]);
            let answer: Numbered<Answer> = serde_json::from_slice(&frame.head)
                .map_err(|_| WorkerError::Garbled(text().into_owned()))?;
            if answer.number == number {
                return Ok((answer.body, frame.payload));
            }
        }
    }

    /// Why a process that says nothing more has ended.
    fn died(&self) -> WorkerError {
        let end = Instant::now() + REST;
        let mut child = lock(&self.process.0.child);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
                // It has closed its end, and goes on.
                Ok(None) => {
                    let _ = child.kill();
                    break child.wait();
                }
                Err(error) => break Err(error),
            }
        };
        match status {
            Ok(status) => WorkerError::Died { status, stderr: self.process.stderr() },
            Err(error) => WorkerError::Io(error),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.process.kill();
        // The process is gone at once, and must not stay as a zombie.
        let _ = lock(&self.process.0.child).wait();
    }
}

impl Handle {
    /// Ends the request under way; its answer says that it was.
    pub fn cancel(&self) {
        self.cancel_from(self.0.number.load(SeqCst));
    }

    /// Ends the request with this number, now or as soon as it comes.
    pub(super) fn cancel_from(&self, of: u64) {
        let request = Numbered { number: 0, body: Request::Cancel { of } };
        if let Ok(head) = serde_json::to_vec(&request) {
            // Who cannot be told is gone.
            let _ = lock(&self.0.sender).send(&head, &[]);
        }
    }

    /// Ends the process, whatever it does.
    pub fn kill(&self) {
        // Fails only if it is gone already.
        let _ = lock(&self.0.child).kill();
    }

    pub fn pid(&self) -> u32 {
        self.0.id
    }

    /// Memory of the process; `None` where the system does not tell, or once it is gone.
    pub fn memory(&self) -> Option<Memory> {
        Memory::of(Some(self.0.id))
    }

    /// The end of what it wrote to standard error, all of which is read once only this holds it.
    fn stderr(&self) -> String {
        let end = Instant::now() + Duration::from_millis(500);
        while Arc::strong_count(&self.0.stderr) > 1 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let mut kept = lock(&self.0.stderr);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

pub(super) fn garbled(answer: &Answer) -> WorkerError {
    WorkerError::Garbled(format!("{answer:?}").chars().take(200).collect())
}

/// Reads to the end, however much comes, and keeps the last bytes.
fn keep_end(mut pipe: impl Read, kept: &Mutex<VecDeque<u8>>) {
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                let mut kept = lock(kept);
                kept.extend(&piece[..count]);
                let surplus = kept.len().saturating_sub(KEPT);
                kept.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A thread that panicked leaves what it held usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, limit: Duration) -> Result<Answer, WorkerError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Worker::of(command)?.ask(&Request::Sample, limit)
    }

    #[test]
    fn children_that_fail_hang_or_talk_nonsense_are_told_apart() {
        let failed = sh("printf 'error\\033[31m: no' >&2; exit 3", LONG).unwrap_err();
        let text = failed.to_string();
        assert!(text.contains("exit code 3") && text.contains("error\\u{1b}[31m: no"), "{text}");
        assert_eq!(failed.code(), Code::E806);
        let killed = sh("kill -9 $$", LONG).unwrap_err().to_string();
        assert!(killed.contains("was killed (signal: 9"), "{killed}");
        let garbled = sh("echo hello, this is no frame >&0; sleep 60", LONG);
        assert!(matches!(garbled, Err(WorkerError::Garbled(_))), "{garbled:?}");
        let start = Instant::now();
        let slow = sh("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(slow, WorkerError::Timeout(_)) && start.elapsed() < LONG);
        assert_eq!(slow.code(), Code::E808);
        let none = Worker::of(Command::new("/nonexistent")).err().unwrap();
        assert!(matches!(none, WorkerError::Io(_)));
    }

    #[test]
    fn a_flood_of_messages_is_read_and_only_its_end_kept() {
        let flood = sh("yes nonsense | head -c 3000000 >&2; echo the end >&2; exit 1", LONG);
        let WorkerError::Died { stderr, .. } = flood.unwrap_err() else { panic!("not dead") };
        assert!(stderr.len() <= KEPT && stderr.ends_with("the end\n"), "{stderr}");
    }

    #[test]
    fn a_refusal_keeps_its_code_and_hint() {
        let hint = Some("try again".to_owned());
        let refusal = Refusal { code: "E603".into(), message: "no".into(), hint: hint.clone() };
        let error = WorkerError::Refused(refusal);
        assert_eq!((error.code(), error.hint()), (Code::E603, hint));
        assert_eq!(error.to_string(), "the process failed (E603): no");
    }
}
