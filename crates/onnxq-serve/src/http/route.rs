//! What can be asked for: one row for each path.

use std::sync::Arc;

use hyper::{Method, Request, body::Incoming};
use percent_encoding::percent_decode_str;

use super::{Answer, App, Track, body, json, refusal, text};
use crate::{
    openai::{self, Asked},
    page,
    problem::{Kind, Problem},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Chat,
    Classify,
    Completions,
    Embeddings,
    Health,
    Live,
    Metrics,
    Model,
    Models,
    Page,
    Ps,
    Ready,
}

/// Those that are open say nothing about models and cost nothing.
const ROUTES: [(&str, &str, To, bool); 12] = [
    ("GET", "/", To::Page, true),
    ("GET", "/health", To::Health, true),
    ("GET", "/health/live", To::Live, true),
    ("GET", "/health/ready", To::Ready, true),
    ("GET", "/metrics", To::Metrics, false),
    ("POST", "/v1/chat/completions", To::Chat, false),
    ("POST", "/v1/classify", To::Classify, false),
    ("POST", "/v1/completions", To::Completions, false),
    ("POST", "/v1/embeddings", To::Embeddings, false),
    ("GET", "/v1/models", To::Models, false),
    ("GET", "/v1/models/{id}", To::Model, false),
    ("GET", "/v1/ps", To::Ps, false),
];

/// What a request is for.
pub(super) struct Route {
    /// As the log writes them: of the table, never the client's words.
    pub method: &'static str,
    pub path: &'static str,
    /// Needs no token.
    pub is_open: bool,
    pub is_preflight: bool,
    to: Result<To, u16>,
    /// What stands for `{id}`.
    id: String,
}

pub(super) fn find(method: &Method, path: &str) -> Route {
    let matches = |row: &&(&str, &str, To, bool)| match row.1.strip_suffix("{id}") {
        Some(head) => path.strip_prefix(head).is_some_and(|it| !it.is_empty()),
        None => path == row.1,
    };
    let Some(row) = ROUTES.iter().find(matches) else {
        let (method, path) = ("-", "-");
        let to = Err(404);
        return Route { method, path, is_open: false, is_preflight: false, to, id: String::new() };
    };
    let (own, path_of_row, to, is_open) = *row;
    let head = row.1.strip_suffix("{id}").unwrap_or(path_of_row);
    let id = percent_decode_str(path.strip_prefix(head).unwrap_or("")).decode_utf8_lossy();
    // What GET may, HEAD may: the answer is sent without its body.
    let is_own = method.as_str() == own || method == Method::HEAD && own == "GET";
    Route {
        method: own,
        path: path_of_row,
        is_open,
        is_preflight: method == Method::OPTIONS,
        to: if is_own { Ok(to) } else { Err(405) },
        id: id.into_owned(),
    }
}

pub(super) async fn dispatch(
    app: &Arc<App>,
    route: Route,
    request: Request<Incoming>,
    track: &mut Track,
) -> Answer {
    let result = match route.to {
        Err(404) => Err(Problem::new(404, Kind::Missing, "not_found", "there is nothing here")),
        Err(_) => {
            let what = format!("this is asked for by {}", route.method);
            Err(Problem::new(405, Kind::Request, "method_not_allowed", what))
        }
        Ok(To::Page) => return page::answer(),
        Ok(To::Health | To::Live) => return text("text/plain; charset=utf-8", "ok\n".into()),
        Ok(To::Ready) => return ready(app),
        Ok(To::Metrics) => return metrics(app),
        Ok(To::Models) => return json(200, &openai::models(app)),
        Ok(To::Model) => openai::model(app, &route.id).map(|it| json(200, &it)),
        Ok(To::Ps) => return json(200, &openai::ps(app)),
        Ok(to) => ask(app, to, request, track).await,
    };
    result.unwrap_or_else(|problem| {
        track.failed(&problem);
        refusal(&problem)
    })
}

async fn ask(
    app: &Arc<App>,
    to: To,
    request: Request<Incoming>,
    track: &mut Track,
) -> Result<Answer, Problem> {
    let deadline = openai::deadline(request.headers(), &app.limits)?;
    // Its share is kept until the request is answered or its stream begins.
    let (bytes, _share) = body::read(request, &app.limits, &app.bodies).await?;
    let fields = openai::Fields::parse(&bytes)?;
    drop(bytes);
    let asked = Asked::new(app, fields, deadline, track)?;
    match to {
        To::Chat => openai::chat(asked).await,
        To::Completions => openai::completions(asked).await,
        To::Embeddings => openai::embeddings(asked).await,
        _ => openai::classify(asked).await,
    }
}

fn ready(app: &App) -> Answer {
    let is_ready = app.registry.is_ready();
    let mut answer =
        text("text/plain; charset=utf-8", if is_ready { "ok\n" } else { "no\n" }.into());
    if !is_ready {
        *answer.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

fn metrics(app: &App) -> Answer {
    let registry = &app.registry;
    let names: Vec<&str> = registry.models.iter().map(|it| &*it.name).collect();
    let page = registry.metrics.page(&names, &registry.list(), registry.budget());
    text("text/plain; version=0.0.4; charset=utf-8", page)
}
