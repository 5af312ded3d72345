//! Sessions in processes of their own: a model that crashes ONNX Runtime, or never ends, costs its process
//! and becomes an error.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Answer, Memory, Request, Worker, WorkerError, WorkerOptions,
    client::garbled,
    protocol::{ExamineJob, Library, OpenJob},
    remote::Remote,
};
use crate::engine::{EngineError, Examined, Host, Located, Session, SessionOptions, Source};

/// What a process may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To load a model, and for each run.
    pub time: Duration,
    /// Memory of its own in bytes; `None`: nine tenths of what is free when it starts.
    pub memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { time: Duration::from_secs(600), memory: None }
    }
}

impl Limits {
    /// What a process may have of its own that is started now.
    pub(super) fn own_memory(&self) -> Option<u64> {
        self.memory.or_else(|| Some(Memory::available()? / 10 * 9))
    }
}

/// Starts processes, and keeps those whose session was closed for the next one.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    program: PathBuf,
    limits: Limits,
    idle: Mutex<Vec<Worker>>,
}

/// Processes that wait for another session.
const MOST_IDLE: usize = 4;

impl Pool {
    /// Of processes of the program at `program`.
    pub fn new(program: PathBuf, limits: Limits) -> Pool {
        Pool(Arc::new(Inner { program, limits, idle: Mutex::default() }))
    }

    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    pub fn program(&self) -> &Path {
        &self.0.program
    }

    /// A process that has no session.
    pub fn take(&self) -> Result<Worker, WorkerError> {
        let idle = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(worker) = idle() {
            if worker.is_alive() {
                return Ok(worker);
            }
        }
        let memory = self.0.limits.own_memory();
        let program = self.0.program.clone();
        Worker::start(&WorkerOptions { program, memory, ..WorkerOptions::default() })
    }

    pub(super) fn give_back(&self, worker: Worker) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(worker);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl Host for Pool {
    fn open(
        &self,
        located: &Located,
        source: Source<'_>,
        options: &SessionOptions,
        custom_ops: &[PathBuf],
    ) -> Result<Box<dyn Session>, EngineError> {
        let (path, custom_ops) = (located.path.clone(), custom_ops.to_vec());
        let mut job = OpenJob {
            model: None,
            len: 0,
            folder: None,
            options: options.clone(),
            library: Library { path, custom_ops },
        };
        let (mut model, mut payload) = ("the model".to_owned(), Vec::new());
        match source {
            Source::File(path) => {
                model = format!("`{}`", path.display());
                job.model = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
            }
            Source::Bytes { model: bytes, folder } => {
                job.len = bytes.len();
                payload.push(Bytes::copy_from_slice(bytes));
                job.folder = folder.map(|it| std::path::absolute(it).unwrap_or_else(|_| it.into()));
            }
        }
        let mut remote = Remote::new(self.clone(), model)?;
        match remote.ask(&Request::Open(job), &payload, "it was loaded")?.0 {
            Answer::Opened { inputs, outputs, left_out } => {
                Ok(Box::new(remote.opened(inputs, outputs, left_out)?))
            }
            other => Err(remote.failed(garbled(&other), "it was loaded")),
        }
    }

    fn register(&self, located: &Located, custom_ops: &[PathBuf]) -> Result<(), EngineError> {
        let (path, custom_ops) = (located.path.clone(), custom_ops.to_vec());
        let mut remote = Remote::new(self.clone(), "custom operators".to_owned())?;
        let request = Request::Register(Library { path, custom_ops });
        remote.ask(&request, &[], "they were registered").map(drop)
    }

    fn examine(&self, located: &Located, kernels: bool) -> Result<Examined, EngineError> {
        let library = Library { path: located.path.clone(), custom_ops: Vec::new() };
        let mut remote = Remote::new(self.clone(), "ONNX Runtime".to_owned())?;
        let request = Request::Examine(ExamineJob { library, kernels });
        match remote.ask(&request, &[], "it was probed")?.0 {
            Answer::Examined(examined) => Ok(examined),
            other => Err(remote.failed(garbled(&other), "it was probed")),
        }
    }
}
