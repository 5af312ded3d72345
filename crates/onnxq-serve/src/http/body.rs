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
use tokio::{sync::mpsc, time::timeout};

use crate::{
    config::Limits,
    problem::{Kind, Problem},
};

/// How long a client that sends too much is listened to, so that it hears why nobody does.
const FAREWELL: Duration = Duration::from_secs(2);

/// The whole body.
pub(super) async fn read(request: Request<Incoming>, limits: &Limits) -> Result<Bytes, Problem> {
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
            bytes.extend_from_slice(&data);
        }
        Ok(true)
    };
    match timeout(limits.body_time, reading).await {
        Ok(Ok(true)) => Ok(bytes.freeze()),
        Ok(Ok(false)) => too_large(body, false, limits).await,
        Ok(Err(problem)) => Err(problem),
        Err(_) => {
            let what = "the body did not come in time";
            Err(Problem::new(408, Kind::Request, "request_timeout", what))
        }
    }
}

/// A system that closes a connection with unread bytes in it takes the answer back.
async fn too_large(mut body: Incoming, waits: bool, limits: &Limits) -> Result<Bytes, Problem> {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    if !waits {
        drop(timeout(FAREWELL, rest).await);
    }
    let what = format!("the body has more than {} bytes", limits.body_bytes);
    Err(Problem::new(413, Kind::Request, "request_too_large", what))
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
