//! What the user sees of an answer: text as it comes, or one object.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
};

use serde::Serialize;

use super::super::{Failure, Table, Ui};
use onnxq_ir::untrusted::escape;
use onnxq_run::{
    answer::{
        AnswerError, Event, Finish, Generate, Label, Labelled, Model, Span, Task, Timing,
        TokenLogprob, Usage,
    },
    engine::Stop,
};

/// A whole result.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Text(Answer),
    Labels { labels: Vec<Label>, tokens: usize },
    Spans { spans: Vec<Span>, tokens: usize },
    Vector { vector: Vec<f32>, tokens: usize },
}

/// An answer that is complete.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub text: String,
    pub finish: Finish,
    pub usage: Usage,
    pub timing: Timing,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Object<'a> {
    schema: &'static str,
    onnxq: &'static str,
    #[serde(flatten)]
    result: &'a Shown,
}

impl Shown {
    /// What a classifier or an embedding model makes of a text.
    pub(super) fn of_text(model: &mut Model, text: &str) -> Result<Shown, AnswerError> {
        let texts = [text.to_owned()];
        if model.facts().task == Task::Embed {
            let mut made = model.embed(&texts)?;
            return Ok(Shown::Vector { vector: made.vectors.remove(0), tokens: made.tokens });
        }
        let Labelled { labels, spans, tokens } = model.classify(&texts)?.remove(0);
        Ok(match labels.is_empty() {
            true => Shown::Spans { spans, tokens },
            false => Shown::Labels { labels, tokens },
        })
    }
}

/// An answer; its pieces are handed on as they come.
pub(super) fn collect(
    model: &mut Model,
    request: &Generate,
    stop: &Stop,
    on: &mut dyn FnMut(&str),
) -> Result<Answer, AnswerError> {
    let (mut text, mut logprobs, mut last) = (String::new(), Vec::new(), None);
    let mut take = |event: Event| match event {
        Event::Text { text: more, logprobs: own } => {
            on(&more);
            text.push_str(&more);
            logprobs.extend(own);
        }
        Event::Done { finish, usage, timing } => last = Some((finish, usage, timing)),
    };
    model.generate(request, stop, &mut take)?;
    let (finish, usage, timing) =
        last.unwrap_or((Finish::Cancelled, Usage::default(), Timing::default()));
    Ok(Answer { text, finish, usage, timing, logprobs })
}

/// Answers, and shows the answer as it comes.
pub(super) fn answer(
    model: &mut Model,
    request: &Generate,
    stop: &Stop,
    ui: &Ui,
) -> Result<Answer, Failure> {
    let terminal = io::stdout().is_terminal();
    let (streams, mut closed) = (!ui.global.json, None);
    let mut on = |text: &str| {
        if !streams || closed.is_some() {
            return;
        }
        let text = if terminal { for_terminal(text) } else { text.to_owned() };
        if let Err(failure) = ui.print(&text) {
            // Nobody reads on.
            closed = Some(failure);
            stop.stop();
        }
    };
    let result = collect(model, request, stop, &mut on);
    if let Some(failure) = closed {
        return Err(failure);
    }
    let answer = result?;
    if streams {
        ui.print("\n")?;
        ui.note(&speed(&answer));
        return Ok(answer);
    }
    let shown = Shown::Text(answer);
    print(&shown, ui)?;
    let Shown::Text(answer) = shown else { unreachable!("made above") };
    Ok(answer)
}

/// Prints a whole result.
pub(super) fn print(result: &Shown, ui: &Ui) -> Result<(), Failure> {
    if ui.global.json {
        let (schema, onnxq) = ("onnxq.run/1", env!("CARGO_PKG_VERSION"));
        return ui.print_json(&Object { schema, onnxq, result });
    }
    ui.print(&plain(result))
}

fn plain(result: &Shown) -> String {
    match result {
        Shown::Text(answer) => answer.text.clone() + "\n",
        Shown::Labels { labels, .. } => {
            let mut table = Table::new(["label", "score"]).right(&[1]);
            for it in labels {
                table.row([&*escape(&it.label), &format!("{:.4}", it.score)]);
            }
            table.to_string()
        }
        Shown::Spans { spans, .. } if spans.is_empty() => {
            "nothing in the text has a label\n".into()
        }
        Shown::Spans { spans, .. } => {
            let mut table = Table::new(["label", "score", "bytes", "text"]).right(&[1]);
            for it in spans {
                let (score, bytes) =
                    (format!("{:.4}", it.score), format!("{}..{}", it.start, it.end));
                table.row([&*escape(&it.label), &score, &bytes, &escape(&it.text)]);
            }
            table.to_string()
        }
        Shown::Vector { vector, .. } => {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            format!("[{}]\n", numbers.join(", "))
        }
    }
}

/// Text from a model that cannot move the cursor.
fn for_terminal(text: &str) -> String {
    let line = |part: &str| match part.strip_suffix(['\n', '\t']) {
        Some(rest) => escape(rest) + &part[rest.len()..],
        None => escape(part),
    };
    text.split_inclusive(['\n', '\t']).map(line).collect()
}

/// How fast prompt and answer went.
fn speed(answer: &Answer) -> String {
    let (usage, timing) = (&answer.usage, &answer.timing);
    let mut line = format!("prompt {} tokens", usage.prompt_tokens);
    if usage.cached_tokens > 0 {
        let _ = write!(line, " ({} read before)", usage.cached_tokens);
    }
    let read = usage.prompt_tokens - usage.cached_tokens;
    line += &rate(read, timing.prefill_ms);
    let _ = write!(line, " · answer {} tokens", usage.completion_tokens);
    // The first one comes with the prompt.
    line += &rate(usage.completion_tokens.saturating_sub(1), timing.decode_ms);
    match answer.finish {
        Finish::Length => line + " · ended by its limit",
        Finish::Cancelled => line + " · stopped",
        Finish::Stop => line,
    }
}

fn rate(tokens: usize, ms: f64) -> String {
    match tokens > 0 && ms > 0.0 {
        true => format!(", {:.1}/s", tokens as f64 / ms * 1e3),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_cannot_move_the_cursor() {
        let text = "a\tb\nc\x1b[2Jd\re\n\nä";
        assert_eq!(for_terminal(text), "a\tb\nc\\u{1b}[2Jd\\u{d}e\n\nä");
        assert_eq!(for_terminal("\u{202e}x"), "\\u{202e}x");
    }

    #[test]
    fn speeds_are_of_what_was_read_and_written() {
        let usage = Usage { prompt_tokens: 100, completion_tokens: 11, cached_tokens: 64 };
        let timing = Timing { prefill_ms: 18.0, decode_ms: 100.0 };
        let finish = Finish::Length;
        let answer = Answer { text: String::new(), finish, usage, timing, logprobs: Vec::new() };
        let expected = "prompt 100 tokens (64 read before), 2000.0/s · answer 11 tokens, 100.0/s · \
             ended by its limit";
        assert_eq!(speed(&answer), expected);
    }
}
