//! Requests over connections: accepted within limits, checked, routed, and logged when they are over.

mod accept;
mod body;
mod guard;
mod patient;
mod route;
mod track;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use serde_json::Value;
use tokio::sync::Semaphore;

pub(crate) use self::{
    accept::run,
    body::Chunks,
    guard::{Guard, check_token, is_loopback},
    track::Track,
};
use crate::{config::Limits, problem::Problem, registry::Registry};

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What every request needs.
pub(crate) struct App {
    pub registry: Arc<Registry>,
    pub limits: Limits,
    pub guard: Guard,
    /// Bytes of bodies that may be in memory.
    bodies: Semaphore,
    /// Seconds since 1970.
    pub created: u64,
    ids: AtomicU64,
}

impl App {
    pub(crate) fn new(registry: Arc<Registry>, limits: Limits, guard: Guard) -> App {
        let bodies = Semaphore::new(limits.all_bodies);
        App { registry, limits, guard, bodies, created: now(), ids: AtomicU64::new(0) }
    }

    /// A name for an answer that no other answer of this server has.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{:x}-{count:x}", self.created)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Answers one request; dropped when the client leaves before.
pub(crate) async fn answer(app: Arc<App>, request: Request<Incoming>) -> Answer {
    let route = route::find(request.method(), request.uri().path());
    let mut track = Track::new(&app, route.method, route.path);
    let origin = app.guard.allowed_origin(request.headers());
    let mut answer = match app.guard.check(&route, request.uri(), request.headers()) {
        Err(problem) => {
            track.failed(&problem);
            refusal(&problem)
        }
        Ok(()) if route.is_preflight => preflight(),
        Ok(()) => route::dispatch(&app, route, request, &mut track).await,
    };
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    track.status(answer.status().as_u16());
    answer
}

pub(crate) fn json(status: u16, value: &Value) -> Answer {
    let mut answer = text("application/json", value.to_string());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

pub(crate) fn text(kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An error as clients read it.
pub(crate) fn refusal(problem: &Problem) -> Answer {
    let mut answer = json(problem.status, &problem.json());
    let headers: &mut HeaderMap = answer.headers_mut();
    if let Some(retry) = problem.retry {
        let seconds = retry.as_secs_f64().ceil().max(1.0) as u64;
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if problem.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// What a listed origin may do.
fn preflight() -> Answer {
    let mut answer = text("text/plain", String::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let allowed = HeaderValue::from_static("authorization, content-type, x-onnxq-deadline-ms");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}
