//! `POST /v1/embeddings`: texts in, one vector for each out.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Asked, answer::warn, asked::MOST_INPUTS};
use crate::{
    http::{Answer, json as answer},
    problem::Problem,
};
use onnxq_run::answer::{Task, Usage};

pub(crate) async fn embeddings(mut asked: Asked<'_>) -> Result<Answer, Problem> {
    asked.check_task(Task::Embed)?;
    let texts = inputs(&mut asked)?;
    let as_base64 = match asked.fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Problem::field("encoding_format", "must be float or base64")),
    };
    asked.fields.refuse("dimensions", |_| false)?;
    asked.fields.ignore(&["user"]);
    let lease = asked.lease(Task::Embed).await?;
    let told = lease.embed(texts, asked.until).await?;
    drop(lease);
    let data = told.vectors.iter().enumerate().map(|(index, vector)| {
        let embedding = if as_base64 { packed(vector) } else { json!(vector) };
        json!({"object": "embedding", "index": index, "embedding": embedding})
    });
    Ok(listed(asked, data.collect(), told.tokens))
}

/// One entry for each text, and how many tokens were read.
pub(super) fn listed(asked: Asked<'_>, data: Value, prompt_tokens: usize) -> Answer {
    asked.track.usage(Usage { prompt_tokens, ..Usage::default() });
    let mut body = json!({
        "object": "list",
        "data": data,
        "model": asked.config().name,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    });
    warn(&mut body, &asked.fields.warnings());
    answer(200, &body)
}

/// A text or a list of texts, none of them empty.
pub(super) fn inputs(asked: &mut Asked) -> Result<Vec<String>, Problem> {
    let texts = asked.fields.texts("input", MOST_INPUTS)?;
    match texts.is_empty() || texts.iter().any(String::is_empty) {
        true => {
            Err(Problem::field("input", "must be a text or a list of texts, none of them empty"))
        }
        false => Ok(texts),
    }
}

/// Floats of 32 bits, little-endian.
fn packed(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|it| it.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes).into()
}
