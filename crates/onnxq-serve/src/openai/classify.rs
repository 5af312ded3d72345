//! `POST /v1/classify`: texts in, labels with their probabilities out.

use serde_json::{Value, json};

use super::{
    Asked,
    embeddings::{inputs, listed},
};
use crate::{http::Answer, problem::Problem};
use onnxq_run::answer::{Labelled, Task};

pub(crate) async fn classify(mut asked: Asked<'_>) -> Result<Answer, Problem> {
    asked.check_task(Task::Classify)?;
    let texts = inputs(&mut asked)?;
    asked.fields.ignore(&["user"]);
    let lease = asked.lease(Task::Classify).await?;
    let told = lease.classify(texts, asked.until).await?;
    drop(lease);
    let prompt_tokens = told.iter().map(|it| it.tokens).sum();
    let data = told.iter().enumerate().map(|(index, it)| one(index, it));
    Ok(listed(asked, data.collect(), prompt_tokens))
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
