//! Bodies: those of requests read within limits, those of answers that come in pieces.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request,
    body::{Body, Frame, Incoming},
    header,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::timeout,
};

use crate::{
    config::Limits,
    problem::{Kind, Problem},
};

/// How long a client that sends too much is listened to, so that it hears why nobody does.
const FAREWELL: Duration = Duration::from_secs(2);

/// The whole body, and its share of the memory that bodies may have.
pub(super) async fn read<'a>(
    request: Request<Incoming>,
    limits: &Limits,
    room: &'a Semaphore,
) -> Result<(Bytes, SemaphorePermit<'a>), Problem> {
    let mut share = room.try_acquire_many(0).map_err(|_| crowded())?;
    let waits = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    if body.size_hint().lower() > limits.body_bytes as u64 {
        return too_large(body, waits, limits).await;
    }
    let mut bytes = BytesMut::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(broken()) };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                return Ok(false);
            }
            let more = u32::try_from(data.len()).map_err(|_| crowded())?;
            share.merge(room.try_acquire_many(more).map_err(|_| crowded())?);
            bytes.extend_from_slice(&data);
        }
        Ok(true)
    };
    match timeout(limits.body_time, reading).await {
        Ok(Ok(true)) => Ok((bytes.freeze(), share)),
        Ok(Ok(false)) => too_large(body, false, limits).await,
        Ok(Err(problem)) => Err(problem),
        Err(_) => {
            let what = "the body did not come in time";
            Err(Problem::new(408, Kind::Request, "request_timeout", what))
        }
    }
}

/// A system that closes a connection with unread bytes in it takes the answer back.
async fn too_large<T>(mut body: Incoming, waits: bool, limits: &Limits) -> Result<T, Problem> {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    if !waits {
        drop(timeout(FAREWELL, rest).await);
    }
    let what = format!("the body has more than {} bytes", limits.body_bytes);
    Err(Problem::new(413, Kind::Request, "request_too_large", what))
}

fn crowded() -> Problem {
    let what = "the server has no memory left for requests that wait";
    Problem::busy("too_many_bytes", what, Duration::from_secs(1))
}

fn broken() -> Problem {
    Problem::request("invalid_body", "the body could not be read")
}

/// Pieces of an answer as they come. Dropped when the client leaves, which the sender sees.
pub(crate) struct Chunks(pub mpsc::UnboundedReceiver<Bytes>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|it| it.map(|it| Ok(Frame::data(it))))
    }
}
