//! A session in another process.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Answer, Pool, Request, TensorHead, Worker, WorkerError,
    client::garbled,
    tensors::{IoHead, pack, unpack},
};
use crate::engine::{EngineError, IoInfo, KernelSamples, LeftOut, Session, match_inputs};
use onnxq_ir::{tensor::Tensor, untrusted::Untrusted};

/// A session in another process.
pub(super) struct Remote {
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
    pub(super) fn new(pool: Pool, model: String) -> Result<Remote, EngineError> {
        let started = pool.take();
        let (inputs, outputs, left_out) = Default::default();
        let mut remote = Remote { pool, worker: None, model, inputs, outputs, left_out };
        remote.worker =
            Some(started.map_err(|error| remote.failed(error, "a process was started"))?);
        Ok(remote)
    }

    /// Asks the process; `when` says what it was doing if it fails.
    pub(super) fn ask(
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

    pub(super) fn failed(&mut self, error: WorkerError, when: &str) -> EngineError {
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

    /// The session of a model that was loaded.
    pub(super) fn opened(
        mut self,
        inputs: Vec<IoHead>,
        outputs: Vec<IoHead>,
        left_out: Vec<LeftOut>,
    ) -> Result<Remote, EngineError> {
        let infos = |list: Vec<IoHead>| list.into_iter().map(IoHead::info).collect();
        let (inputs, outputs): (Option<_>, Option<_>) = (infos(inputs), infos(outputs));
        self.inputs = inputs.ok_or_else(|| self.nonsense())?;
        self.outputs = outputs.ok_or_else(|| self.nonsense())?;
        self.left_out = left_out;
        Ok(self)
    }

    fn nonsense(&mut self) -> EngineError {
        self.failed(WorkerError::Garbled("tensors that are none".into()), "it answered")
    }

    /// The tensors of a run, checked as every session checks them, and what they are.
    fn packed(
        &self,
        inputs: &[(&str, &Tensor)],
    ) -> Result<(Vec<TensorHead>, Vec<Bytes>, String), EngineError> {
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
