//! The worker's side: requests one after the other, and what may come while one is under way.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use bytes::Bytes;

use super::{
    Answer, Refusal, Request,
    channel::{self, Frame},
    end, footprint,
    protocol::{Library, LoadJob, Numbered, OpenJob},
    tensors::{TensorHead, pack, unpack},
};
use crate::{
    answer::{Generate, Model},
    engine::{EngineError, IoInfo, Places, Runtime, RuntimeOptions, Session, Source, Stop},
};
use onnxq_ir::{diag::Code, tensor::Tensor};

/// Answers requests until nobody asks any more. `memory` limits what this process may have of its own.
pub fn serve(memory: Option<u64>) -> io::Result<()> {
    end::limit(memory)?;
    let (mut sender, mut receiver) = channel::own()?;
    let current = Current::default();
    let (requests, queue) = mpsc::channel();
    let reader = current.clone();
    thread::spawn(move || {
        while let Ok(Some(frame)) = receiver.receive() {
            reader.take(frame, &requests);
        }
        // Whoever asked is gone, and what runs is for nobody.
        end::now();
    });
    let mut served = Served::default();
    for (number, request, payload) in queue {
        let stop = current.begin(number);
        let mut send = |answer: &Answer, parts: &[Bytes]| {
            let head = serde_json::to_vec(&Numbered { number, body: answer })?;
            sender.send(&head, parts)
        };
        served.answer(request, &payload, &stop, &mut send)?;
    }
    Ok(())
}

type Asked = (u64, Request, Bytes);

/// The newest request, and how it is ended.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<(u64, Stop)>>);

impl Current {
    /// Looks at what came: a request is for later, a cancellation for now.
    fn take(&self, frame: Frame, requests: &mpsc::Sender<Asked>) {
        let Ok(Numbered { number, body }) = serde_json::from_slice(&frame.head) else {
            // Both sides are the same program.
            end::now();
        };
        match body {
            Request::Cancel { of } => self.cancel(of),
            // Fails only if the process is about to end.
            request => drop(requests.send((number, request, frame.payload))),
        }
    }

    fn begin(&self, number: u64) -> Stop {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been cancelled before it began.
        if current.0 != number {
            *current = (number, Stop::default());
        }
        current.1.clone()
    }

    fn cancel(&self, number: u64) {
        let stop = {
            let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if current.0 < number {
                *current = (number, Stop::default());
            }
            (current.0 == number).then(|| current.1.clone())
        };
        if let Some(stop) = stop {
            stop.stop();
        }
    }
}

/// What this process has loaded.
#[derive(Default)]
struct Served {
    session: Option<Box<dyn Session>>,
    /// What answers texts.
    model: Option<Model>,
}

type Send<'a> = dyn FnMut(&Answer, &[Bytes]) -> io::Result<()> + 'a;

impl Served {
    /// Does what a request says, and sends what came of it; errors are answers too.
    fn answer(
        &mut self,
        request: Request,
        payload: &Bytes,
        stop: &Stop,
        send: &mut Send,
    ) -> io::Result<()> {
        let answer = match request {
            Request::Run { inputs } => return self.run(inputs, payload, send),
            Request::Generate(request) => return self.generate(&request, stop, send),
            Request::Load(job) => refused(self.load(&job)),
            Request::Embed { texts } => {
                refused(self.model().and_then(|it| Ok(Answer::Vectors(it.embed(&texts)?))))
            }
            Request::Classify { texts } => refused(
                self.model().and_then(|it| Ok(Answer::Labelled { texts: it.classify(&texts)? })),
            ),
            Request::Footprint(job) => {
                footprint::measure(&job).map_or_else(Answer::Refused, Answer::Footprint)
            }
            Request::Open(job) => self.open(&job, payload).unwrap_or_else(fault),
            Request::Examine(job) => {
                let examined = runtime(&job.library).examined(job.kernels);
                examined.map_or_else(fault, Answer::Examined)
            }
            Request::Register(it) => {
                let registered = runtime(&it).check_custom_ops();
                registered.map_or_else(fault, |()| Answer::Done)
            }
            Request::Time { inputs } => self.time(inputs, payload).unwrap_or_else(fault),
            Request::Sample => {
                Answer::Sampling { started: self.session.as_mut().is_some_and(|it| it.sample()) }
            }
            Request::Sampled => {
                Answer::Sampled { samples: self.session.as_mut().and_then(|it| it.sampled()) }
            }
            Request::Close => {
                self.session = None;
                Answer::Done
            }
            Request::Cancel { .. } => Answer::Done,
        };
        send(&answer, &[])
    }

    fn load(&mut self, job: &LoadJob) -> Result<Answer, Refusal> {
        self.model = None;
        let model = Model::load(&job.place, &runtime(&job.library))?;
        let facts = model.facts().clone();
        self.model = Some(model);
        Ok(Answer::Loaded(facts))
    }

    fn model(&mut self) -> Result<&mut Model, Refusal> {
        self.model.as_mut().ok_or_else(|| Refusal {
            code: Code::E999.name().to_owned(),
            message: "a worker without a model was asked".to_owned(),
            hint: None,
        })
    }

    /// Sends pieces of the answer as they come; who does not take them ends it.
    fn generate(&mut self, request: &Generate, stop: &Stop, send: &mut Send) -> io::Result<()> {
        let mut failed = None;
        let answered = self.model().and_then(|model| {
            let mut each = |event| {
                if failed.is_none() {
                    failed = send(&Answer::Event(event), &[]).err();
                    failed.iter().for_each(|_| stop.stop());
                }
            };
            Ok(model.generate(request, stop, &mut each)?)
        });
        match (failed, answered) {
            (Some(error), _) => Err(error),
            (None, Err(refusal)) => send(&Answer::Refused(refusal), &[]),
            (None, Ok(())) => Ok(()),
        }
    }

    fn open(&mut self, job: &OpenJob, payload: &Bytes) -> Result<Answer, EngineError> {
        self.session = None;
        let source = match &job.model {
            Some(path) => Source::File(path),
            None => {
                // Behind it the payload is filled up.
                let model = payload.get(..job.len).unwrap_or(payload);
                Source::Bytes { model, folder: job.folder.as_deref() }
            }
        };
        let session = runtime(&job.library).open_source(source, &job.options)?;
        let heads = |list: &[IoInfo]| list.iter().map(Into::into).collect();
        let answer = Answer::Opened {
            inputs: heads(session.inputs()),
            outputs: heads(session.outputs()),
            left_out: session.left_out().to_vec(),
        };
        self.session = Some(session);
        Ok(answer)
    }

    fn run(&mut self, inputs: Vec<TensorHead>, payload: &Bytes, send: &mut Send) -> io::Result<()> {
        let ran = self.with(inputs, payload, |session, inputs| {
            let outputs = session.run(inputs)?;
            pack(outputs.iter().map(|(name, it)| (&**name, it)))
        });
        match ran {
            Ok((outputs, parts)) => send(&Answer::Ran { outputs }, &parts),
            Err(error) => send(&fault(error), &[]),
        }
    }

    fn time(&mut self, inputs: Vec<TensorHead>, payload: &Bytes) -> Result<Answer, EngineError> {
        let time = self.with(inputs, payload, |session, inputs| session.time(inputs))?;
        Ok(Answer::Timed { seconds: time.as_secs_f64() })
    }

    fn with<T>(
        &mut self,
        inputs: Vec<TensorHead>,
        payload: &Bytes,
        act: impl FnOnce(&mut dyn Session, &[(&str, &Tensor)]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let nothing = |what: &str| EngineError::Told {
            code: Code::E999.name().to_owned(),
            message: format!("a worker was asked to run {what}"),
            hint: None,
        };
        let session = self.session.as_mut().ok_or_else(|| nothing("no session"))?;
        let inputs = unpack(inputs, payload).ok_or_else(|| nothing("tensors that are none"))?;
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
        act(&mut **session, &inputs)
    }
}

fn fault(error: EngineError) -> Answer {
    Answer::Fault(error.into())
}

fn refused(answer: Result<Answer, Refusal>) -> Answer {
    answer.unwrap_or_else(Answer::Refused)
}

/// The library, and no other.
pub(super) fn runtime(library: &Library) -> Runtime<'static> {
    // The system's loader, which is asked by default, knows where a bare name leads.
    let named = library.path.components().count() > 1;
    let places = Places { library: named.then(|| library.path.clone()), ..Places::default() };
    Runtime::from(RuntimeOptions {
        places,
        offline: true,
        custom_ops: library.custom_ops.clone(),
        ..RuntimeOptions::default()
    })
}
