//! A model that answers texts in a process of its own.

use std::time::Duration;

use super::{
    Answer, Limits, Request, Worker, WorkerError, WorkerOptions,
    client::garbled,
    protocol::{Library, LoadJob},
};
use crate::{
    answer::{AnswerError, Answers, Event, Generate, Labelled, ModelFacts, Place, Vectors},
    engine::{EngineError, Stop},
};

/// As [`Model`](crate::answer::Model), in another process. One that died is started again for the next
/// request.
pub struct RemoteModel {
    worker: Option<Worker>,
    options: WorkerOptions,
    time: Duration,
    job: LoadJob,
    facts: ModelFacts,
}

impl RemoteModel {
    /// Loads a model in a process of the program that `options` name.
    ///
    /// # Errors
    /// What loading says, and E806 or E808 if the process died, or took too long.
    pub fn load(
        options: WorkerOptions,
        limits: Limits,
        place: Place,
        library: Library,
    ) -> Result<RemoteModel, AnswerError> {
        let options = WorkerOptions { memory: limits.own_memory(), ..options.in_large_pages() };
        let job = LoadJob { place, library };
        let (worker, facts) = start(&options, &job, limits.time)?;
        Ok(RemoteModel { worker: Some(worker), options, time: limits.time, job, facts })
    }

    fn worker(&mut self) -> Result<&mut Worker, AnswerError> {
        if self.worker.is_none() {
            self.worker = Some(start(&self.options, &self.job, self.time)?.0);
        }
        Ok(self.worker.as_mut().expect("it was just started"))
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, AnswerError> {
        let time = self.time;
        let answer = self.worker()?.ask(request, time);
        answer.map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: WorkerError) -> AnswerError {
        if !matches!(error, WorkerError::Refused(_)) {
            self.worker = None;
        }
        failed(&self.job, error, "it answered")
    }
}

fn start(
    options: &WorkerOptions,
    job: &LoadJob,
    time: Duration,
) -> Result<(Worker, ModelFacts), AnswerError> {
    let failed = |error| failed(job, error, "it was loaded");
    let mut worker = Worker::start(options).map_err(failed)?;
    match worker.ask(&Request::Load(job.clone()), time).map_err(failed)? {
        Answer::Loaded(facts) => Ok((worker, facts)),
        other => Err(failed(garbled(&other))),
    }
}

fn failed(job: &LoadJob, error: WorkerError, when: &str) -> AnswerError {
    let (model, when) = (format!("`{}`", job.place.model.display()), when.to_owned());
    AnswerError::Engine(match error {
        WorkerError::Refused(it) => {
            EngineError::Told { code: it.code, message: it.message, hint: it.hint }
        }
        WorkerError::Timeout(limit) => EngineError::TooLong { model, when, limit },
        other => EngineError::Died { model, when, how: other.to_string() },
    })
}

impl Answers for RemoteModel {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn generate(
        &mut self,
        request: &Generate,
        stop: &Stop,
        on: &mut dyn FnMut(Event),
    ) -> Result<(), AnswerError> {
        let time = self.time;
        let worker = self.worker()?;
        let (handle, next) = (worker.handle(), worker.next_number());
        stop.on_stop(move || handle.cancel_from(next));
        let streamed = worker.stream(&Request::Generate(request.clone()), time, on);
        streamed.map_err(|error| self.failed(error))
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vectors, AnswerError> {
        match self.ask(&Request::Embed { texts: texts.to_vec() })? {
            Answer::Vectors(vectors) => Ok(vectors),
            other => Err(self.failed(garbled(&other))),
        }
    }

    fn classify(&mut self, texts: &[String]) -> Result<Vec<Labelled>, AnswerError> {
        match self.ask(&Request::Classify { texts: texts.to_vec() })? {
            Answer::Labelled { texts } => Ok(texts),
            other => Err(self.failed(garbled(&other))),
        }
    }
}
