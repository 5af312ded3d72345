//! One line of JSON: what kind of document it is.

use serde_json::{Map, Value};

/// A document. How it prints is what it says: equal documents are equal texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Role and content of each.
    Messages(Vec<(String, String)>),
    Answer {
        prompt: String,
        response: String,
    },
    Text(String),
    Labelled {
        text: String,
        label: usize,
    },
}

/// What is wrong with a line.
#[derive(Debug)]
pub(super) struct Wrong {
    pub fact: String,
    pub hint: Option<&'static str>,
}

impl Wrong {
    pub(super) fn new(fact: impl Into<String>, hint: &'static str) -> Wrong {
        Wrong { fact: fact.into(), hint: Some(hint) }
    }
}

/// What a line may be.
const FORMS: &str = "write {\"messages\": [{\"role\": \"user\", \"content\": …}, {\"role\": \
    \"assistant\", \"content\": …}]}, {\"prompt\": …, \"response\": …}, {\"text\": …} or {\"text\": …, \
    \"label\": …}";
/// What some call the response.
const RESPONSES: &[&str] = &["response", "completion"];

pub(super) fn parse(line: &str, labels: &[String]) -> Result<Record, Wrong> {
    let value: Value = serde_json::from_str(line)
        .map_err(|it| Wrong::new(format!("is no JSON: {it}"), "write one object in each line"))?;
    let Value::Object(fields) = &value else {
        return Err(Wrong::new("is no object", FORMS));
    };
    if let Some(messages) = fields.get("messages") {
        return messages_of(messages);
    }
    if fields.contains_key("prompt") {
        let name = RESPONSES.iter().find(|it| fields.contains_key(**it)).unwrap_or(&RESPONSES[0]);
        let (prompt, response) = (text(fields, "prompt")?, text(fields, name)?);
        if response.is_empty() {
            return Err(Wrong::new(format!("has an empty `{name}`"), "leave the line out"));
        }
        return Ok(Record::Answer { prompt, response });
    }
    let text = text(fields, "text")?;
    match fields.get("label") {
        None => Ok(Record::Text(text)),
        Some(label) => Ok(Record::Labelled { text, label: class(label, labels)? }),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, Wrong> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Wrong::new(format!("has a `{name}` that is no string"), FORMS)),
        None => Err(Wrong::new(format!("has no `{name}`"), FORMS)),
    }
}

fn messages_of(value: &Value) -> Result<Record, Wrong> {
    let wrong = |fact: &str| Wrong::new(fact, FORMS);
    let list = value.as_array().ok_or_else(|| wrong("has `messages` that are no list"))?;
    let mut messages = Vec::new();
    for (at, message) in list.iter().enumerate() {
        let role = message["role"].as_str();
        let role = role.ok_or_else(|| wrong(&format!("has no `role` in message {at}")))?;
        let content = content(&message["content"]);
        let content = content.ok_or_else(|| wrong(&format!("has no text in message {at}")))?;
        messages.push((role.to_owned(), content));
    }
    match messages.iter().any(|(role, content)| role == "assistant" && !content.is_empty()) {
        true => Ok(Record::Messages(messages)),
        false => {
            Err(wrong("has no answer of the role `assistant`, so that nothing would be learned"))
        }
    }
}

/// A string, or parts of text as APIs write them.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let part = |it: &Value| it["text"].as_str().map(str::to_owned);
            parts.iter().map(part).collect::<Option<Vec<_>>>().map(|it| it.concat())
        }
        _ => None,
    }
}

/// A number of a class, or its name.
fn class(value: &Value, labels: &[String]) -> Result<usize, Wrong> {
    let known = "labels are numbers from 0, or the names in `id2label` of config.json";
    let found = match value {
        Value::Number(number) => number.as_u64().and_then(|it| usize::try_from(it).ok()),
        Value::String(name) => labels.iter().position(|it| it == name),
        _ => None,
    };
    match found {
        Some(at) if labels.is_empty() || at < labels.len() => Ok(at),
        _ if labels.is_empty() => {
            Err(Wrong::new(format!("has the label {value}, and the model names no classes"), known))
        }
        _ => Err(Wrong::new(
            format!("has the label {value}, which is none of {}", labels.join(", ")),
            known,
        )),
    }
}
