//! A process of this program for each slot.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Backend, Fault, Handle, Memory, Slot, Why};
use crate::config::ModelConfig;
use onnxq_ir::diag::{Code, Diagnostic};
use onnxq_run::{
    answer::{Event, Generate, Labelled, ModelFacts, Place, Vectors},
    engine::EngineError,
    worker::{self, Answer, Library, LoadJob, Request, Worker, WorkerError, WorkerOptions},
};

/// How models are run.
pub struct Workers {
    /// The program of which workers are processes.
    pub program: PathBuf,
    /// ONNX Runtime.
    pub library: Library,
    /// Memory of its own that a worker may have.
    pub memory: Option<u64>,
    /// How long a model may take to load.
    pub patience: Duration,
}

struct WorkerSlot(Worker);

impl Backend for Workers {
    fn start(
        &self,
        model: &ModelConfig,
        started: &mut dyn FnMut(Arc<dyn Handle>),
    ) -> Result<(Box<dyn Slot>, ModelFacts), Fault> {
        let program = self.program.clone();
        let options = WorkerOptions { program, memory: self.memory, ..WorkerOptions::default() };
        let options = options.in_large_pages();
        let mut worker = Worker::start(&options)?;
        started(Arc::new(worker.handle()));
        let place = Place {
            model: model.path.clone(),
            tokenizer: model.tokenizer.clone(),
            labels: model.labels.clone(),
            task: model.preset.task(),
            context: model.context,
            threads: threads(model),
        };
        let job = LoadJob { place, library: self.library.clone() };
        match worker.ask(&Request::Load(job), self.patience)? {
            Answer::Loaded(facts) => Ok((Box::new(WorkerSlot(worker)), facts)),
            other => Err(unexpected(other)),
        }
    }
}

/// Slots share the cores, unless somebody says otherwise.
fn threads(model: &ModelConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if model.threads > 0 { model.threads } else { (cores / model.slots).max(1) }
}

impl Slot for WorkerSlot {
    fn generate(
        &mut self,
        request: &Generate,
        limit: Duration,
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Fault> {
        Ok(self.0.stream(&Request::Generate(request.clone()), limit, events)?)
    }

    fn embed(&mut self, texts: &[String], limit: Duration) -> Result<Vectors, Fault> {
        match self.0.ask(&Request::Embed { texts: texts.to_vec() }, limit)? {
            Answer::Vectors(it) => Ok(it),
            other => Err(unexpected(other)),
        }
    }

    fn classify(&mut self, texts: &[String], limit: Duration) -> Result<Vec<Labelled>, Fault> {
        match self.0.ask(&Request::Classify { texts: texts.to_vec() }, limit)? {
            Answer::Labelled { texts } => Ok(texts),
            other => Err(unexpected(other)),
        }
    }
}

impl Handle for worker::Handle {
    fn cancel(&self) {
        worker::Handle::cancel(self);
    }

    fn kill(&self) {
        worker::Handle::kill(self);
    }

    fn memory(&self) -> Option<Memory> {
        worker::Handle::memory(self)
    }
}

/// An answer that is none to what was asked: an error of the engine, or nonsense.
fn unexpected(answer: Answer) -> Fault {
    match answer {
        Answer::Fault(fault) => {
            let error = EngineError::from(fault);
            told(error.code(), &error.to_string())
        }
        other => {
            let detail: String = format!("{other:?}").chars().take(200).collect();
            Fault::new(Why::Crashed, Some(Code::E806), detail)
        }
    }
}

/// What a process says that goes on.
fn told(code: Code, message: &str) -> Fault {
    let why = if speaks_of_memory(message) { Why::Memory } else { Why::Refused };
    // A template may say what messages say, which is for nobody else.
    let detail = if code == Code::E626 { "" } else { message };
    let fault = Fault::new(why, Some(code), detail);
    // Numbers of tokens and names of settings only.
    let is_public = [Code::E625, Code::E628].contains(&code);
    Fault { message: is_public.then(|| message.to_owned()), ..fault }
}

/// As C++, Rust and ONNX Runtime say that there is none left.
fn speaks_of_memory(text: &str) -> bool {
    ["bad_alloc", "memory allocation of", "Failed to allocate memory"]
        .iter()
        .any(|it| text.contains(it))
}

impl From<WorkerError> for Fault {
    fn from(error: WorkerError) -> Fault {
        let why = match &error {
            WorkerError::Refused(it) => {
                return told(error.code(), &it.message);
            }
            WorkerError::Timeout(_) => Why::Hung,
            WorkerError::Died { stderr, .. } if speaks_of_memory(stderr) => Why::Memory,
            WorkerError::Died { .. } | WorkerError::Garbled(_) | WorkerError::Io(_) => Why::Crashed,
        };
        Fault::new(why, Some(error.code()), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_run::worker::Refusal;

    #[test]
    fn only_numbers_of_tokens_reach_the_client() {
        let refused = |code: &str, message: &str| {
            let (code, message) = (code.to_owned(), message.to_owned());
            let fault = Fault::from(WorkerError::Refused(Refusal { code, message, hint: None }));
            (fault.why, fault.of_request())
        };
        let (why, problem) = refused("E905", "`/secret/m.onnx` is not there");
        assert_eq!((why, problem.status), (Why::Refused, 400));
        assert!(!problem.message.contains("secret") && problem.detail.unwrap().contains("secret"));
        let (_, problem) = refused("E625", "prompt of 9 tokens");
        assert_eq!(
            (&*problem.code, &*problem.message),
            ("context_length_exceeded", "prompt of 9 tokens")
        );
        let (why, problem) = refused("E803", "std::bad_alloc");
        assert_eq!((why, problem.status), (Why::Memory, 503));
    }
}
