//! What requests of all kinds have in common: a model, a deadline, how to choose tokens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::HeaderMap;

use super::Fields;
use crate::{
    config::{Limits, ModelConfig},
    http::{App, Track},
    problem::{Kind, Problem},
    registry::Lease,
    sampling,
};
use onnxq_run::answer::{Sampling, Task};

/// Names the deadline of a request, in milliseconds.
const DEADLINE: &str = "x-onnxq-deadline-ms";
/// Texts that end an answer.
const MOST_STOPS: usize = 16;
/// Letters of one of them.
const LONGEST_STOP: usize = 256;
/// Texts in a list.
pub(super) const MOST_INPUTS: usize = 256;
/// Tokens of an answer; the context ends it before.
const MOST_TOKENS: usize = 1 << 24;

/// A request to a model.
pub(crate) struct Asked<'a> {
    pub app: &'a Arc<App>,
    pub track: &'a mut Track,
    pub fields: Fields,
    /// Its place in the configuration.
    pub model: usize,
    /// Until then somebody waits.
    pub until: Instant,
}

/// How an answer is to be written.
pub(super) struct Manner {
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub max_tokens: Option<usize>,
    pub stream: bool,
    /// The last piece of a stream says how many tokens there were.
    pub include_usage: bool,
}

/// How long the request may take, if it says so.
pub(crate) fn deadline(headers: &HeaderMap, limits: &Limits) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|it| it.parse::<u64>().ok()).filter(|it| *it > 0);
    match number.map(Duration::from_millis) {
        Some(deadline) if deadline <= limits.deadline => Ok(Some(deadline)),
        _ => {
            let most = limits.deadline.as_millis();
            let what = format!("must be a number of milliseconds from 1 to {most}");
            Err(Problem::field(DEADLINE, what))
        }
    }
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        app: &'a Arc<App>,
        mut fields: Fields,
        deadline: Option<Duration>,
        track: &'a mut Track,
    ) -> Result<Asked<'a>, Problem> {
        let models = &app.registry.models;
        let model = match fields.text("model")? {
            Some(name) => find(models, &name)?,
            // Nothing else could be meant.
            None if models.len() == 1 => 0,
            None => return Err(Problem::field("model", "is missing")),
        };
        track.model(&models[model].name);
        let until = track.began + deadline.unwrap_or(models[model].deadline);
        Ok(Asked { app, track, fields, model, until })
    }

    pub(super) fn config(&self) -> &'a ModelConfig {
        &self.app.registry.models[self.model]
    }

    /// What is asked for must be what the model is configured for.
    pub(super) fn check_task(&self, wanted: Task) -> Result<(), Problem> {
        match self.config().preset.task() {
            Some(task) if task != wanted => Err(other_task(self.config(), task)),
            _ => Ok(()),
        }
    }

    /// A slot of the model, when it is this request's turn.
    pub(super) async fn lease(&mut self, wanted: Task) -> Result<Lease, Problem> {
        let lease = self.app.registry.acquire(self.model, self.until).await?;
        self.track.waited(lease.waited);
        match lease.facts.task {
            task if task != wanted => Err(other_task(self.config(), task)),
            _ => Ok(lease),
        }
    }

    pub(super) fn manner(&mut self) -> Result<Manner, Problem> {
        let config = self.config();
        let fields = &mut self.fields;
        let sampling = Sampling {
            temperature: fields.number("temperature")?,
            top_k: fields.count("top_k", usize::MAX)?,
            top_p: fields.number("top_p")?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            seed: fields.seed("seed")?,
        };
        if let Some((field, what)) = sampling::wrong(&sampling) {
            return Err(Problem::field(field, what));
        }
        refuse_unsupported(fields)?;
        let newer = fields.count("max_completion_tokens", MOST_TOKENS)?;
        let older = fields.count("max_tokens", MOST_TOKENS)?;
        let stream = fields.flag("stream")?;
        Ok(Manner {
            sampling: sampling::over(sampling, &config.sampling),
            stop: stops(fields)?,
            max_tokens: newer.or(older).or(config.max_tokens).or(config.preset.max_tokens()),
            stream,
            include_usage: include_usage(fields)?,
        })
    }
}

fn find(models: &[ModelConfig], name: &str) -> Result<usize, Problem> {
    models.iter().position(|it| it.name == name).ok_or_else(|| {
        let what = "there is no such model; GET /v1/models lists those there are";
        let problem = Problem::new(404, Kind::Missing, "model_not_found", what);
        Problem { param: Some("model".into()), ..problem }
    })
}

fn other_task(model: &ModelConfig, task: Task) -> Problem {
    let path = match task {
        Task::Generate => "/v1/chat/completions or /v1/completions",
        Task::Classify => "/v1/classify",
        Task::Embed => "/v1/embeddings",
    };
    let what = format!("`{}` is asked by POST {path}", model.name);
    let problem = Problem::request("wrong_endpoint", what);
    Problem { param: Some("model".into()), ..problem }
}

/// What would make another answer of the same request, and what changes nothing.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), Problem> {
    let is_zero = |it: &serde_json::Value| it.as_f64() == Some(0.0);
    let is_empty = |it: &serde_json::Value| {
        it.as_array().is_some_and(Vec::is_empty) || it.as_object().is_some_and(|it| it.is_empty())
    };
    let is_one = |it: &serde_json::Value| it.as_f64() == Some(1.0);
    for list in ["tools", "functions", "logit_bias"] {
        fields.refuse(list, is_empty)?;
    }
    for choice in ["tool_choice", "function_call"] {
        fields.refuse(choice, |it| it == "none" || it == "auto")?;
    }
    for number in ["n", "best_of"] {
        fields.refuse(number, is_one)?;
    }
    for penalty in ["presence_penalty", "frequency_penalty"] {
        fields.refuse(penalty, is_zero)?;
    }
    fields.refuse("response_format", |it| it["type"] == "text")?;
    fields.refuse("modalities", |it| *it == serde_json::json!(["text"]))?;
    fields.refuse("audio", |_| false)?;
    fields.ignore(&["user", "metadata", "store", "service_tier", "parallel_tool_calls"]);
    Ok(())
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, Problem> {
    let stops = fields.texts("stop", MOST_STOPS)?;
    let is_wrong = |it: &String| it.is_empty() || it.chars().count() > LONGEST_STOP;
    match stops.iter().any(is_wrong) {
        true => {
            let what = format!("must have texts of 1 to {LONGEST_STOP} characters");
            Err(Problem::field("stop", what))
        }
        false => Ok(stops),
    }
}

fn include_usage(fields: &mut Fields) -> Result<bool, Problem> {
    match fields.take("stream_options") {
        None => Ok(false),
        Some(serde_json::Value::Object(map)) => {
            Ok(map.get("include_usage").and_then(serde_json::Value::as_bool).unwrap_or(false))
        }
        Some(_) => Err(Problem::field("stream_options", "must be an object")),
    }
}
