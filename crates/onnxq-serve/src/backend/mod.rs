//! What runs a model: a process for each slot, or a script in tests.

#[cfg(test)]
pub(crate) mod scripted;
mod worker;

use std::{sync::Arc, time::Duration};

pub use self::worker::Workers;
use crate::{
    config::ModelConfig,
    problem::{Kind, Problem},
};
use onnxq_ir::diag::{Code, EXIT_BUG, EXIT_ENVIRONMENT, EXIT_USAGE};
use onnxq_run::answer::{Event, Generate, Labelled, ModelFacts, Vectors};
pub use onnxq_run::worker::Memory;

/// Starts what runs a model.
pub trait Backend: Send + Sync {
    /// Loads a model, which takes a while. `started` gets a handle as soon as there is something
    /// that could be ended.
    fn start(
        &self,
        model: &ModelConfig,
        started: &mut dyn FnMut(Arc<dyn Handle>),
    ) -> Result<(Box<dyn Slot>, ModelFacts), Fault>;
}

/// A loaded model that answers one request at a time. Dropping it unloads the model.
pub trait Slot: Send {
    fn generate(
        &mut self,
        request: &Generate,
        limit: Duration,
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Fault>;
    fn embed(&mut self, texts: &[String], limit: Duration) -> Result<Vectors, Fault>;
    fn classify(&mut self, texts: &[String], limit: Duration) -> Result<Vec<Labelled>, Fault>;
}

/// What can be done to a slot from outside, whatever it is doing.
pub trait Handle: Send + Sync {
    /// Ends the answer that is being written; nothing if there is none.
    fn cancel(&self);
    /// Ends the process.
    fn kill(&self);
    /// What it keeps in memory; `None` where nobody can say.
    fn memory(&self) -> Option<Memory>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub why: Why,
    /// As `onnxq explain` knows it.
    pub code: Option<Code>,
    /// What the client may read: without paths and prompts.
    pub message: Option<String>,
    /// For the log: may have paths in it, and what the process said.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The model cannot answer this request; it may answer others.
    Refused,
    /// The process ended, or said what nobody understands.
    Crashed,
    /// It took longer than it might.
    Hung,
    /// It wanted more memory than it may have.
    Memory,
}

impl Fault {
    pub fn new(why: Why, code: Option<Code>, detail: impl Into<String>) -> Fault {
        Fault { why, code, message: None, detail: detail.into() }
    }

    /// Whether the slot can be asked again.
    pub(crate) fn spares_the_slot(&self) -> bool {
        self.why == Why::Refused
    }

    /// What a client is told of a request that failed.
    pub(crate) fn of_request(&self) -> Problem {
        let code = self.code.map(Code::name);
        let problem = match self.why {
            Why::Refused => return self.refusal(),
            Why::Crashed => {
                let what = "the process that ran the model ended before the answer was complete";
                Problem::new(500, Kind::Server, code.unwrap_or("worker_crashed"), what)
            }
            Why::Hung => Problem::late(),
            Why::Memory => {
                let what = "the request needed more memory than the model may have";
                Problem::new(503, Kind::Overloaded, code.unwrap_or("out_of_memory"), what)
            }
        };
        problem.with_detail(&*self.detail)
    }

    /// A request that the model refuses is the client's to change, unless the machine is at fault.
    fn refusal(&self) -> Problem {
        let Some(code) = self.code else {
            let what = "the model cannot answer this request";
            return Problem::request("request_refused", what).with_detail(&*self.detail);
        };
        let ours = [EXIT_BUG, EXIT_ENVIRONMENT].contains(&code.exit()) || code == Code::E629;
        let (status, kind) = if ours { (500, Kind::Server) } else { (400, Kind::Request) };
        let message = self.message.as_deref().unwrap_or(code.text());
        Problem::new(status, kind, name_of(code), message).with_detail(&*self.detail)
    }

    /// What clients are told while a model that could not be loaded is not tried again.
    pub(crate) fn of_load(&self, retry: Duration) -> Problem {
        let what = match (self.why, self.code) {
            (Why::Memory, _) => {
                "the model does not fit into the memory that it may have".to_owned()
            }
            (Why::Hung, _) => "the model took too long to load".to_owned(),
            (_, Some(code)) if code.exit() != EXIT_USAGE => {
                format!("the model could not be loaded: {}", code.text())
            }
            _ => "the model could not be loaded".to_owned(),
        };
        let code = self.code.map_or("model_load_failed", Code::name);
        Problem::busy(code, what, retry).with_detail(&*self.detail)
    }
}

/// As clients know it that were written for OpenAI.
fn name_of(code: Code) -> &'static str {
    if code == Code::E625 { "context_length_exceeded" } else { code.name() }
}
