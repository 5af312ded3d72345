//! A batch: lines of JSON in, lines of JSON out, in order. A line that fails does not end it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    super::{Failure, Ui, stream::is_stream},
    Args, MOST_BYTES,
    shown::{self, Shown},
};
use onnxq_ir::diag::{Code, EXIT_FINE};
use onnxq_run::{
    answer::{AnswerError, Generate, Message, Model, Prompt, Task},
    engine::Stop,
};

/// What a line may say. What it does not say is as on the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Comes back with the result.
    #[serde(default)]
    id: Value,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    text: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Texts>,
    logprobs: Option<usize>,
    echo: Option<bool>,
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

#[derive(Serialize)]
struct Answered {
    line: usize,
    #[serde(skip_serializing_if = "Value::is_null")]
    id: Value,
    #[serde(flatten)]
    result: Outcome,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Done(Box<Shown>),
    Failed { error: Problem },
}

#[derive(Serialize)]
struct Problem {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let causes = failure.causes();
        let parts = [vec![failure.message()], causes].concat();
        Problem { code: failure.code(), message: parts.join(": "), hint: failure.hint() }
    }
}

/// Answers every line. Exits as the first line that failed would have.
pub(super) fn run(args: &Args, model: &mut Model, file: &Path, ui: &Ui) -> Result<u8, Failure> {
    let mut reader = open(file)?;
    let (mut exit, mut failed, mut count) = (EXIT_FINE, 0, 0);
    for number in 1.. {
        let Some(text) = next(&mut *reader, file)? else { break };
        if text.as_ref().is_ok_and(|it| it.trim().is_empty()) {
            continue;
        }
        let (id, result) = answered(args, model, text);
        count += 1;
        let result = match result {
            Ok(shown) => Outcome::Done(Box::new(shown)),
            Err(failure) => {
                exit = if exit == EXIT_FINE { failure.exit() } else { exit };
                failed += 1;
                Outcome::Failed { error: failure.into() }
            }
        };
        let line = Answered { line: number, id, result };
        let json = serde_json::to_string(&line).map_err(|it| Failure::Stdout(it.into()))?;
        ui.print(&(json + "\n"))?;
    }
    if failed > 0 {
        ui.note(&format!("{failed} of {count} lines failed; each says why"));
    }
    Ok(exit)
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if is_stream(file) {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let failed = |source| AnswerError::Io { file: file.into(), source };
    Ok(Box::new(BufReader::new(File::open(file).map_err(failed)?)))
}

/// The next line; why it is none that can be read, or nothing at the end.
#[allow(clippy::type_complexity, reason = "said above")]
fn next(reader: &mut dyn BufRead, file: &Path) -> Result<Option<Result<String, String>>, Failure> {
    let failed = |source| AnswerError::Io { file: file.into(), source };
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES).read_until(b'\n', &mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() as u64 == MOST_BYTES && bytes.last() != Some(&b'\n') {
        reader.skip_until(b'\n').map_err(failed)?;
        return Ok(Some(Err(format!("the line has more than {MOST_BYTES} bytes"))));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|it| format!("the line is no UTF-8: {it}"))))
}

/// What comes of a line, and its id.
fn answered(
    args: &Args,
    model: &mut Model,
    text: Result<String, String>,
) -> (Value, Result<Shown, Failure>) {
    let wrong = |fact: String| Failure::from(AnswerError::Request(fact));
    let line: Line = match text.map(|it| serde_json::from_str(it.trim())) {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => {
            return (Value::Null, Err(wrong(format!("the line cannot be understood: {error}"))));
        }
        Err(fact) => return (Value::Null, Err(wrong(fact))),
    };
    let id = line.id.clone();
    let result = match model.facts().task {
        Task::Generate => generated(args, model, line),
        _ => encoded(model, &line),
    };
    (id, result)
}

fn encoded(model: &mut Model, line: &Line) -> Result<Shown, Failure> {
    let settings = [
        line.prompt.is_some(),
        line.messages.is_some(),
        line.max_tokens.is_some(),
        line.stop.is_some(),
        line.logprobs.is_some(),
        line.echo.is_some(),
        line.temperature.is_some(),
    ];
    let fact = match &line.text {
        Some(text) if !settings.contains(&true) => return Ok(Shown::of_text(model, text)?),
        _ => "the line must have a `text`, and nothing that continues one",
    };
    Err(AnswerError::Request(fact.into()).into())
}

fn generated(args: &Args, model: &mut Model, line: Line) -> Result<Shown, Failure> {
    let request = request(args, line, model.facts().chat)?;
    let answer = shown::collect(model, &request, &Stop::default(), &mut |_| {})?;
    Ok(Shown::Text(answer))
}

fn request(args: &Args, line: Line, chat: bool) -> Result<Generate, AnswerError> {
    let prompt = match (line.prompt, line.messages, line.text) {
        (Some(prompt), None, None) => args.prompt_of(&prompt, &[], chat),
        (None, Some(messages), None) => Prompt::Chat(with_system(args, messages)),
        _ => {
            let fact = "the line must have a `prompt` or `messages`, and only one of them";
            return Err(AnswerError::Request(fact.into()));
        }
    };
    let mut request = args.request(prompt);
    let own = &mut request.sampling;
    own.temperature = line.temperature.or(own.temperature);
    own.top_k = line.top_k.or(own.top_k);
    own.top_p = line.top_p.or(own.top_p);
    own.min_p = line.min_p.or(own.min_p);
    own.repetition_penalty = line.repetition_penalty.or(own.repetition_penalty);
    own.seed = line.seed.or(own.seed);
    request.max_tokens = line.max_tokens.or(request.max_tokens);
    request.logprobs = line.logprobs;
    request.echo = line.echo.unwrap_or(false);
    request.stop = match line.stop {
        Some(Texts::One(text)) => vec![text],
        Some(Texts::Several(texts)) => texts,
        None => request.stop,
    };
    Ok(request)
}

/// `--system` is for messages that do not begin with one.
fn with_system(args: &Args, mut messages: Vec<Message>) -> Vec<Message> {
    let has = messages.first().is_some_and(|it| it.role == "system");
    if let Some(content) = args.system.clone().filter(|_| !has) {
        messages.insert(0, Message { role: "system".to_owned(), content });
    }
    messages
}
