//! Sessions in processes of their own: a model that crashes ONNX Runtime, or never ends, costs its process
//! and becomes an error.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Answer, Memory, Request, Worker, WorkerError, WorkerOptions,
    client::garbled,
    protocol::{ExamineJob, Library, OpenJob},
    tensors::{IoHead, pack, unpack},
};
use crate::engine::{
    EngineError, Examined, Host, IoInfo, KernelSamples, LeftOut, Located, Session, SessionOptions,
    Source, match_inputs,
};
use onnxq_ir::{tensor::Tensor, untrusted::Untrusted};

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

    /// A process that has no session.
    pub fn take(&self) -> Result<Worker, WorkerError> {
        let idle = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(worker) = idle() {
            if worker.is_alive() {
                return Ok(worker);
            }
        }
        let memory = self.0.limits.memory.or_else(|| Some(Memory::available()? / 10 * 9));
        let program = self.0.program.clone();
        Worker::start(&WorkerOptions { program, memory, ..WorkerOptions::default() })
    }

    fn give_back(&self, worker: Worker) {
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
                let infos = |list: Vec<IoHead>| list.into_iter().map(IoHead::info).collect();
                let (inputs, outputs): (Option<_>, Option<_>) = (infos(inputs), infos(outputs));
                remote.inputs = inputs.ok_or_else(|| remote.nonsense())?;
                remote.outputs = outputs.ok_or_else(|| remote.nonsense())?;
                remote.left_out = left_out;
                Ok(Box::new(remote))
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

/// A session in another process.
struct Remote {
    pool: Pool,
    /// `None` once it has failed.
    worker: Option<Worker>,
    /// What messages call the model.
    model: String,
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
    left_out: Vec<LeftOut>,
}

impl Remote {
    fn new(pool: Pool, model: String) -> Result<Remote, EngineError> {
        let started = pool.take();
        let (inputs, outputs, left_out) = Default::default();
        let mut remote = Remote { pool, worker: None, model, inputs, outputs, left_out };
        remote.worker =
            Some(started.map_err(|error| remote.failed(error, "a process was started"))?);
        Ok(remote)
    }

    /// Asks the process; `when` says what it was doing if it fails.
    fn ask(
        &mut self,
        request: &Request,
        parts: &[Bytes],
        when: &str,
    ) -> Result<(Answer, Bytes), EngineError> {
        let limit = self.pool.limits().time;
        let Some(worker) = &mut self.worker else {
            return Err(self.failed(WorkerError::Garbled("it failed before".into()), when));
        };
        match worker.ask_with(request, parts, limit) {
            Ok((Answer::Fault(fault), _)) => Err(fault.into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(error, when)),
        }
    }

    fn failed(&mut self, error: WorkerError, when: &str) -> EngineError {
        let (model, when) = (self.model.clone(), when.to_owned());
        match error {
            WorkerError::Refused(it) => {
                EngineError::Told { code: it.code, message: it.message, hint: it.hint }
            }
            WorkerError::Timeout(limit) => {
                self.worker = None;
                EngineError::TooLong { model, when, limit }
            }
            other => {
                self.worker = None;
                EngineError::Died { model, when, how: other.to_string() }
            }
        }
    }

    fn nonsense(&mut self) -> EngineError {
        self.failed(WorkerError::Garbled("tensors that are none".into()), "it answered")
    }

    /// The tensors of a run, checked as every session checks them, and what they are.
    fn packed(
        &self,
        inputs: &[(&str, &Tensor)],
    ) -> Result<(Vec<super::TensorHead>, Vec<Bytes>, String), EngineError> {
        let tensors = match_inputs(&self.inputs, inputs)?;
        let named = self.inputs.iter().zip(tensors).map(|(info, it)| (&*info.name, it));
        let (heads, parts) = pack(named)?;
        Ok((heads, parts, when(inputs)))
    }
}

/// What a run was given, for messages: a few inputs suffice to find it again.
fn when(inputs: &[(&str, &Tensor)]) -> String {
    const SHOWN: usize = 4;
    let one = |(name, it): &(&str, &Tensor)| {
        let sizes: Vec<String> = it.shape.iter().map(usize::to_string).collect();
        format!("`{}` {}[{}]", Untrusted(name), it.dtype, sizes.join(","))
    };
    let list: Vec<String> = inputs.iter().take(SHOWN).map(one).collect();
    match (list.is_empty(), inputs.len() > SHOWN) {
        (true, _) => "it ran".to_owned(),
        (_, true) => format!("it ran on {}, …", list.join(", ")),
        (_, false) => format!("it ran on {}", list.join(", ")),
    }
}

impl Session for Remote {
    fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError> {
        let (inputs, parts, when) = self.packed(inputs)?;
        match self.ask(&Request::Run { inputs }, &parts, &when)? {
            (Answer::Ran { outputs }, payload) => {
                unpack(outputs, &payload).ok_or_else(|| self.nonsense())
            }
            (other, _) => Err(self.failed(garbled(&other), &when)),
        }
    }

    fn time(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Duration, EngineError> {
        let (inputs, parts, when) = self.packed(inputs)?;
        match self.ask(&Request::Time { inputs }, &parts, &when)?.0 {
            Answer::Timed { seconds } => {
                Duration::try_from_secs_f64(seconds).map_err(|_| self.nonsense())
            }
            other => Err(self.failed(garbled(&other), &when)),
        }
    }

    fn sample(&mut self) -> bool {
        let answer = self.ask(&Request::Sample, &[], "it was sampled");
        matches!(answer, Ok((Answer::Sampling { started: true }, _)))
    }

    fn sampled(&mut self) -> Option<KernelSamples> {
        match self.ask(&Request::Sampled, &[], "it was sampled") {
            Ok((Answer::Sampled { samples }, _)) => samples,
            _ => None,
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let Some(mut worker) = self.worker.take() else { return };
        let limit = Duration::from_secs(10);
        if matches!(worker.ask(&Request::Close, limit), Ok(Answer::Done)) {
            self.pool.give_back(worker);
        }
    }
}
