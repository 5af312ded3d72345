//! What answers look like, whole or in pieces.

use bytes::Bytes;
use serde_json::{Value, json};

use super::logprobs;
use crate::{
    http::{App, now},
    problem::Problem,
};
use onnxq_run::answer::{Finish, Timing, TokenLogprob, Usage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Text,
}

/// What a model said.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    pub finish: Option<Finish>,
    pub usage: Usage,
    pub timing: Timing,
}

/// Writes one answer.
pub(super) struct Writer {
    shape: Shape,
    id: String,
    created: u64,
    model: String,
    with_logprobs: bool,
    /// Characters of the pieces so far.
    offset: usize,
}

impl Writer {
    pub(super) fn new(app: &App, shape: Shape, model: &str, with_logprobs: bool) -> Writer {
        let id = app.id(if shape == Shape::Chat { "chatcmpl" } else { "cmpl" });
        Writer { shape, id, created: now(), model: model.to_owned(), with_logprobs, offset: 0 }
    }

    /// All of it; one choice for each prompt.
    pub(super) fn whole(&self, told: &[Told], warnings: &[String]) -> Value {
        let choice = |(index, it): (usize, &Told)| {
            let finish = it.finish.map(reason);
            let logprobs = self.logprobs(&it.logprobs, 0);
            match self.shape {
                Shape::Chat => json!({
                    "index": index,
                    "message": {"role": "assistant", "content": it.text},
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
                Shape::Text => json!({
                    "index": index,
                    "text": it.text,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
            }
        };
        let object = match self.shape {
            Shape::Chat => "chat.completion",
            Shape::Text => "text_completion",
        };
        let sum = |of: fn(&Told) -> usize| told.iter().map(of).sum();
        let usage = Usage {
            prompt_tokens: sum(|it| it.usage.prompt_tokens),
            completion_tokens: sum(|it| it.usage.completion_tokens),
            cached_tokens: sum(|it| it.usage.cached_tokens),
        };
        let timing = Timing {
            prefill_ms: told.iter().map(|it| it.timing.prefill_ms).sum(),
            decode_ms: told.iter().map(|it| it.timing.decode_ms).sum(),
        };
        let mut answer = self.frame(object);
        answer["choices"] = told.iter().enumerate().map(choice).collect();
        answer["usage"] = self::usage(&usage);
        answer["timing"] = json!(timing);
        warn(&mut answer, warnings);
        answer
    }

    /// What a stream of messages begins with; warnings are told here.
    pub(super) fn first(&self, warnings: &[String]) -> Option<Bytes> {
        if self.shape == Shape::Text && warnings.is_empty() {
            return None;
        }
        let mut piece = match self.shape {
            Shape::Chat => self.piece(json!({"role": "assistant", "content": ""}), None, &[]),
            Shape::Text => self.piece(json!(""), None, &[]),
        };
        warn(&mut piece, warnings);
        Some(data(&piece))
    }

    pub(super) fn text(&mut self, text: &str, logprobs: &[TokenLogprob]) -> Bytes {
        let content = match self.shape {
            Shape::Chat => json!({"content": text}),
            Shape::Text => json!(text),
        };
        let piece = self.piece(content, None, logprobs);
        self.offset += text.chars().count();
        data(&piece)
    }

    /// Why it ended, how many tokens there were if that is wanted, and that nothing follows.
    pub(super) fn last(&self, told: &Told, include_usage: bool) -> Bytes {
        let content = match self.shape {
            Shape::Chat => json!({}),
            Shape::Text => json!(""),
        };
        let mut piece = self.piece(content, told.finish, &[]);
        piece["timing"] = json!(told.timing);
        let mut bytes = data(&piece).to_vec();
        if include_usage {
            let mut piece = self.frame(self.object_of_piece());
            piece["choices"] = json!([]);
            piece["usage"] = usage(&told.usage);
            bytes.extend_from_slice(&data(&piece));
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes.into()
    }

    /// An error in a stream that has begun.
    pub(super) fn error(problem: &Problem) -> Bytes {
        data(&problem.json())
    }

    fn piece(&self, content: Value, finish: Option<Finish>, logprobs: &[TokenLogprob]) -> Value {
        let key = if self.shape == Shape::Chat { "delta" } else { "text" };
        let logprobs = match logprobs {
            [] => Value::Null,
            some => self.logprobs(some, self.offset),
        };
        let mut piece = self.frame(self.object_of_piece());
        piece["choices"] = json!([{
            "index": 0,
            key: content,
            "logprobs": logprobs,
            "finish_reason": finish.map(reason),
        }]);
        piece
    }

    fn logprobs(&self, tokens: &[TokenLogprob], offset: usize) -> Value {
        match self.shape {
            _ if !self.with_logprobs => Value::Null,
            Shape::Chat => logprobs::of_chat(tokens),
            Shape::Text => logprobs::of_text(tokens, offset),
        }
    }

    fn object_of_piece(&self) -> &'static str {
        match self.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Text => "text_completion",
        }
    }

    fn frame(&self, object: &str) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model})
    }
}

fn usage(tokens: &Usage) -> Value {
    json!({
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "total_tokens": tokens.prompt_tokens + tokens.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": tokens.cached_tokens},
    })
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Cancelled => "cancelled",
    }
}

pub(super) fn warn(answer: &mut Value, warnings: &[String]) {
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
}

/// JSON has no line breaks of its own, so that a piece is one line.
fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}
