//! Events of a worker become an answer: gathered, or passed on piece by piece.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Response,
    header::{self, HeaderValue},
};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::timeout_at,
};

use super::{
    Asked,
    answer::{Told, Writer},
};
use crate::{
    http::{Answer, Chunks, Track},
    problem::Problem,
    registry::{Events, Lease, gone},
};
use onnxq_run::answer::{Event, Generate};

/// The whole answer.
pub(super) async fn whole(
    lease: &Lease,
    request: Generate,
    until: Instant,
) -> Result<Told, Problem> {
    let mut events = lease.generate(request, until);
    let mut told = Told::default();
    while told.finish.is_none() {
        match next(&mut events, until).await? {
            Event::Text { text, logprobs } => {
                told.text.push_str(&text);
                told.logprobs.extend(logprobs);
            }
            done => told.end(&done),
        }
    }
    Ok(told)
}

impl Told {
    fn end(&mut self, event: &Event) {
        if let Event::Done { finish, usage, timing } = event {
            (self.finish, self.usage, self.timing) = (Some(*finish), *usage, *timing);
        }
    }
}

async fn next(events: &mut Events, until: Instant) -> Result<Event, Problem> {
    match timeout_at(until.into(), events.recv()).await {
        Ok(Some(Ok(event))) => Ok(event),
        Ok(Some(Err(fault))) => Err(fault.of_request()),
        Ok(None) => Err(gone()),
        Err(_) => Err(Problem::late()),
    }
}

/// An answer whose first piece is there: what fails before has a status of its own.
pub(super) async fn answer(
    asked: Asked<'_>,
    writer: Writer,
    lease: Lease,
    request: Generate,
    include_usage: bool,
) -> Result<Answer, Problem> {
    let mut events = lease.generate(request, asked.until);
    let first = next(&mut events, asked.until).await?;
    let (sender, receiver) = unbounded_channel();
    if let Some(piece) = writer.first(&asked.fields.warnings()) {
        drop(sender.send(piece));
    }
    let track = asked.track.moved();
    let pump = Pump { writer, sender, track, until: asked.until, include_usage };
    tokio::spawn(pump.run(lease, first, events));
    let mut answer = Response::new(Chunks(receiver).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// Passes pieces on, whether or not the client takes them in time: a slow reader does not keep the
/// slot from others.
struct Pump {
    writer: Writer,
    sender: UnboundedSender<Bytes>,
    track: Track,
    until: Instant,
    include_usage: bool,
}

impl Pump {
    async fn run(mut self, lease: Lease, first: Event, mut events: Events) {
        let sender = self.sender.clone();
        let passing = async {
            let mut event = Ok(first);
            while self.passed(event) {
                event = next(&mut events, self.until).await;
            }
        };
        tokio::select! {
            () = passing => {}
            // The client has left.
            () = sender.closed() => {}
        }
        drop(lease);
    }

    /// Whether there is more to come.
    fn passed(&mut self, event: Result<Event, Problem>) -> bool {
        let (piece, is_more) = match event {
            Ok(Event::Text { text, logprobs }) => (self.writer.text(&text, &logprobs), true),
            Ok(done) => {
                let mut told = Told::default();
                told.end(&done);
                self.track.usage(told.usage);
                self.track.status(200);
                (self.writer.last(&told, self.include_usage), false)
            }
            Err(problem) => {
                self.track.failed(&problem);
                self.track.status(problem.status);
                (Writer::error(&problem), false)
            }
        };
        self.sender.send(piece).is_ok() && is_more
    }
}
