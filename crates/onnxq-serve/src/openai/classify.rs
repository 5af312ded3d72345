//! `POST /v1/classify`: texts in, labels with their probabilities out.

use serde_json::{Value, json};

use super::{Asked, answer::warn, embeddings::inputs};
use crate::{
    http::{Answer, json as answer},
    problem::Problem,
};
use onnxq_run::answer::{Labelled, Task, Usage};

pub(crate) async fn classify(mut asked: Asked<'_>) -> Result<Answer, Problem> {
    asked.check_task(Task::Classify)?;
    let texts = inputs(&mut asked)?;
    asked.fields.ignore(&["user"]);
    let lease = asked.lease(Task::Classify).await?;
    let told = lease.classify(texts, asked.until).await?;
    drop(lease);
    let prompt_tokens = told.iter().map(|it| it.tokens).sum();
    asked.track.usage(Usage { prompt_tokens, ..Usage::default() });
    let data = told.iter().enumerate().map(|(index, it)| one(index, it));
    let mut body = json!({
        "object": "list",
        "data": data.collect::<Value>(),
        "model": asked.config().name,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    });
    warn(&mut body, &asked.fields.warnings());
    Ok(answer(200, &body))
}

/// The best label stands apart: most clients need no other.
fn one(index: usize, text: &Labelled) -> Value {
    let best = text.labels.first();
    json!({
        "index": index,
        "label": best.map(|it| &it.label),
        "score": best.map(|it| it.score),
        "labels": text.labels,
        "spans": text.spans,
    })
}
