//! `POST /v1/completions`: texts or tokens in, what follows them out.

use serde_json::Value;

use super::{
    Asked,
    answer::{Shape, Writer},
    asked::MOST_INPUTS,
    stream,
};
use crate::{
    http::{Answer, json},
    problem::Problem,
};
use onnxq_run::answer::{Generate, Prompt, Task, Usage};

/// Tokens of an answer if nobody says, as OpenAI has it.
const DEFAULT_TOKENS: usize = 16;
const MOST_TOP: usize = 20;
/// Numbers in all prompts of a request.
const MOST_IDS: usize = 1 << 20;

pub(crate) async fn completions(mut asked: Asked<'_>) -> Result<Answer, Problem> {
    asked.check_task(Task::Generate)?;
    let manner = asked.manner()?;
    let prompts = prompts(asked.fields.take("prompt"))?;
    asked.fields.refuse("suffix", |it| it == "")?;
    let logprobs = asked.fields.count("logprobs", MOST_TOP)?;
    let echo = asked.fields.flag("echo")?;
    let of = |prompt| Generate {
        prompt,
        sampling: manner.sampling.clone(),
        max_tokens: Some(manner.max_tokens.unwrap_or(DEFAULT_TOKENS)),
        stop: manner.stop.clone(),
        logprobs,
        echo,
    };
    let mut requests: Vec<Generate> = prompts.into_iter().map(of).collect();
    if manner.stream && requests.len() > 1 {
        return Err(Problem::unsupported("stream", "takes one prompt"));
    }
    let name = &asked.config().name;
    let writer = Writer::new(asked.app, Shape::Text, name, logprobs.is_some());
    let lease = asked.lease(Task::Generate).await?;
    if let (true, Some(request)) = (manner.stream, requests.pop_if(|_| manner.stream)) {
        return stream::answer(asked, writer, lease, request, manner.include_usage).await;
    }
    let mut told = Vec::new();
    let mut usage = Usage::default();
    for request in requests {
        let answer = stream::whole(&lease, request, asked.until).await?;
        usage.prompt_tokens += answer.usage.prompt_tokens;
        usage.completion_tokens += answer.usage.completion_tokens;
        usage.cached_tokens += answer.usage.cached_tokens;
        told.push(answer);
    }
    drop(lease);
    asked.track.usage(usage);
    let warnings = asked.fields.warnings();
    Ok(json(200, &writer.whole(&told, &warnings)))
}

/// A text, tokens, or a list of either.
fn prompts(value: Option<Value>) -> Result<Vec<Prompt>, Problem> {
    let wrong = |what: &str| Problem::field("prompt", what);
    let list = match value {
        Some(Value::String(text)) => return Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) => return Err(wrong("must not be empty")),
        Some(_) => return Err(wrong("must be a text, tokens, or a list of either")),
        None => return Err(wrong("is missing")),
    };
    if list[0].is_number() {
        return Ok(vec![Prompt::Ids(ids(list)?)]);
    }
    if list.len() > MOST_INPUTS {
        return Err(wrong(&format!("must have at most {MOST_INPUTS} prompts")));
    }
    let prompt = |it| match it {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(list) => Ok(Prompt::Ids(ids(list)?)),
        _ => Err(wrong("must be a text, tokens, or a list of either")),
    };
    list.into_iter().map(prompt).collect()
}

fn ids(list: Vec<Value>) -> Result<Vec<u32>, Problem> {
    let id = |it: &Value| it.as_u64().and_then(|it| u32::try_from(it).ok());
    let ids: Option<Vec<u32>> = match list.len() {
        1..=MOST_IDS => list.iter().map(id).collect(),
        _ => None,
    };
    ids.ok_or_else(|| Problem::field("prompt", "has something that is no list of tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prompts_are_texts_tokens_or_lists_of_either() {
        let of = |value: Value| prompts(Some(value)).map_err(|it| it.message);
        let text = |it: &str| Prompt::Text(it.into());
        assert_eq!(of(json!("a")), Ok(vec![text("a")]));
        assert_eq!(of(json!(["a", "b"])), Ok(vec![text("a"), text("b")]));
        assert_eq!(of(json!([1, 2])), Ok(vec![Prompt::Ids(vec![1, 2])]));
        let two = vec![Prompt::Ids(vec![1]), Prompt::Ids(vec![2, 3])];
        assert_eq!(of(json!([[1], [2, 3]])), Ok(two));
        for wrong in [json!([]), json!(5), json!([[]]), json!([-1]), json!([1, "a"]), json!([{}])] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(of(json!(vec!["a"; 257])).is_err());
    }
}
