//! `POST /v1/chat/completions`: messages in, the next one out.

use serde_json::Value;

use super::{
    Asked,
    answer::{Shape, Writer},
    stream,
};
use crate::{
    http::{Answer, json},
    problem::Problem,
};
use onnxq_run::answer::{Generate, Message, Prompt, Task};

/// Most likely tokens that a request may ask for.
const MOST_TOP: usize = 20;
const MOST_MESSAGES: usize = 4096;

pub(crate) async fn chat(mut asked: Asked<'_>) -> Result<Answer, Problem> {
    asked.check_task(Task::Generate)?;
    let config = asked.config();
    let manner = asked.manner()?;
    let mut messages = messages(asked.fields.take("messages"))?;
    if let (Some(system), false) = (&config.system, messages.iter().any(|it| it.role == "system")) {
        messages.insert(0, Message { role: "system".into(), content: system.clone() });
    }
    let request = Generate {
        prompt: Prompt::Chat(config.preset.messages(messages)),
        sampling: manner.sampling.clone(),
        max_tokens: manner.max_tokens,
        stop: manner.stop.clone(),
        logprobs: logprobs(&mut asked)?,
        echo: false,
    };
    let writer = Writer::new(asked.app, Shape::Chat, &config.name, request.logprobs.is_some());
    let lease = asked.lease(Task::Generate).await?;
    if manner.stream {
        return stream::answer(asked, writer, lease, request, manner.include_usage).await;
    }
    let told = stream::whole(&lease, request, asked.until).await?;
    drop(lease);
    asked.track.usage(told.usage);
    let warnings = asked.fields.warnings();
    Ok(json(200, &writer.whole(&[told], &warnings)))
}

fn logprobs(asked: &mut Asked) -> Result<Option<usize>, Problem> {
    let wanted = asked.fields.flag("logprobs")?;
    let top = asked.fields.count("top_logprobs", MOST_TOP)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, Some(1..)) => Err(Problem::field("top_logprobs", "needs `logprobs`: true")),
        (false, _) => Ok(None),
    }
}

fn messages(value: Option<Value>) -> Result<Vec<Message>, Problem> {
    let Some(Value::Array(list)) = value else {
        return Err(Problem::field("messages", "must be a list of messages"));
    };
    if list.is_empty() || list.len() > MOST_MESSAGES {
        let what = format!("must have from 1 to {MOST_MESSAGES} messages");
        return Err(Problem::field("messages", what));
    }
    list.into_iter().enumerate().map(|(at, it)| message(at, it)).collect()
}

fn message(at: usize, value: Value) -> Result<Message, Problem> {
    let wrong = |what: &str| Problem::field(&format!("messages[{at}]"), what);
    let Value::Object(mut fields) = value else { return Err(wrong("must be an object")) };
    for key in ["tool_calls", "function_call", "tool_call_id"] {
        if fields.get(key).is_some_and(|it| !it.is_null()) {
            return Err(Problem::unsupported(&format!("messages[{at}].{key}"), "is not supported"));
        }
    }
    let Some(Value::String(role)) = fields.remove("role") else {
        return Err(wrong("needs a `role`"));
    };
    // What newer clients call the system.
    let role = if role == "developer" { "system".to_owned() } else { role };
    if !["system", "user", "assistant"].contains(&&*role) {
        return Err(wrong("has a role that is none of system, user and assistant"));
    }
    let content = match fields.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<String>, Problem> =
                parts.into_iter().map(|it| part(at, it)).collect();
            texts?.concat()
        }
        _ => return Err(wrong("needs a `content` that is a text or a list of texts")),
    };
    Ok(Message { role, content })
}

fn part(at: usize, value: Value) -> Result<String, Problem> {
    let param = format!("messages[{at}].content");
    let Value::Object(mut part) = value else {
        return Err(Problem::field(&param, "must have objects with a `type`"));
    };
    let is_text = part.get("type").is_some_and(|it| it == "text");
    match part.remove("text") {
        Some(Value::String(text)) if is_text => Ok(text),
        _ if is_text => Err(Problem::field(&param, "has a part without a `text`")),
        _ => Err(Problem::unsupported(&param, "may have parts of type `text` only")),
    }
}
