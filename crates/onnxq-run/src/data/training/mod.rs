//! What a language model or a classifier is trained on: texts, chats, answers, labels.
//!
//! | a line of JSON, or a file | what counts |
//! | --- | --- |
//! | `{"messages": [{"role": …, "content": …}, …]}` | turns of the assistant, to the token that ends them |
//! | `{"prompt": …, "response": …}` | the response, and the token that ends it |
//! | `{"text": …}`, a file of plain text | every token |
//! | `{"text": …, "label": …}` | the label |

mod cut;
mod order;
mod record;
#[cfg(all(test, feature = "text"))]
mod tests;
mod turns;

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::order::order;
use self::{
    cut::{Cutter, Piece},
    order::held_out,
    record::{Record, Wrong},
};
use super::{ChatTemplate, DataError, Vocabulary, digest};
use onnxq_ir::fs::read_file;

/// What one step of training reads at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    pub ids: Vec<i64>,
    /// Of each token: whether predicting it counts. The first one is never predicted.
    pub counts: Vec<bool>,
    /// The number of the class that the whole text is of.
    pub label: Option<usize>,
}

/// How texts become examples.
pub struct Training<'a> {
    pub vocabulary: &'a Vocabulary,
    /// Makes text of messages; `None` if the model has none.
    pub template: Option<&'a ChatTemplate>,
    /// The token that ends a text and an answer, if the model has one.
    pub end: Option<u32>,
    /// The names of the classes, in order; empty if the model is no classifier.
    pub labels: &'a [String],
    /// Tokens of an example, at most; at least 2.
    pub window: usize,
    /// Short examples share a window. What is later in one sees what is before.
    pub pack: bool,
    /// The share of documents that are not trained on, from 0 to 1.
    pub held_out: f64,
}

/// Examples, and what became of the data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingData {
    pub train: Vec<Example>,
    pub held_out: Vec<Example>,
    pub facts: TrainingFacts,
}

/// What became of the data: nothing is left out in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrainingFacts {
    /// The digest of the files.
    pub sha256: String,
    /// Lines of JSON, or texts that the token of their end divides.
    pub documents: usize,
    pub held_out_documents: usize,
    /// Examples that were longer than the window, and how many tokens they lost at their end.
    pub cut_examples: usize,
    pub cut_tokens: usize,
    /// Examples of which nothing that counts was left, and which are not used.
    pub empty_examples: usize,
    /// Tokens of all examples, and those that count.
    pub tokens: usize,
    pub counted_tokens: usize,
}

/// Reads files of text (`.txt`, `.text`, `.md`) and of lines of JSON (`.jsonl`, `.ndjson`).
///
/// A document is held out or trained on by the digest of what it says, so equal ones are never on both
/// sides. A file of text that is one document is divided by its windows.
///
/// # Errors
/// What is wrong with which line, and E606 if nothing is left to train on.
pub fn read(files: &[PathBuf], how: &Training) -> Result<TrainingData, DataError> {
    let mut data = TrainingData::default();
    let mut cutter = Cutter::new(how);
    let mut kind = None;
    for file in files {
        let bytes = read_file(file).map_err(DataError::io(file))?;
        let text = String::from_utf8(bytes)
            .map_err(|it| DataError::format(file, format!("is not UTF-8: {}", it.utf8_error())))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        match extension(file).as_str() {
            "jsonl" | "ndjson" => lines(file, text, how, &mut cutter, &mut kind)?,
            "txt" | "text" | "md" => texts(file, text, how, &mut cutter)?,
            _ => return Err(DataError::TrainingKind { file: file.clone() }),
        }
    }
    let [train, held] = cutter.finish(&mut data.facts);
    (data.train, data.held_out) = (train, held);
    data.facts.sha256 = digest::of(files, None)?;
    if data.train.is_empty() {
        let file = files.first().cloned().unwrap_or_default();
        return Err(match data.facts.empty_examples {
            0 => DataError::Empty { file },
            examples => DataError::NothingCounts { file, examples, window: how.window },
        });
    }
    Ok(data)
}

fn extension(file: &Path) -> String {
    file.extension().and_then(|it| it.to_str()).unwrap_or("").to_ascii_lowercase()
}

/// One document for each line that is not empty.
fn lines(
    file: &Path,
    text: &str,
    how: &Training,
    cutter: &mut Cutter,
    kind: &mut Option<bool>,
) -> Result<(), DataError> {
    for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let wrong = |it: Wrong| DataError::Line {
            file: file.to_owned(),
            line: at + 1,
            fact: it.fact,
            hint: it.hint,
        };
        let record = record::parse(line, how.labels).map_err(wrong)?;
        let labelled = matches!(record, Record::Labelled { .. });
        if *kind.get_or_insert(labelled) != labelled {
            return Err(wrong(Wrong::new(
                "has a label where lines before have none, or none where they have one",
                "train on labels and on texts one after the other",
            )));
        }
        let piece = piece(how, &record)?.map_err(wrong)?;
        cutter.add(piece, held_out(line_digest(&record), how.held_out));
    }
    Ok(())
}

/// The tokens of a document, or what is wrong with its line.
fn piece(how: &Training, record: &Record) -> Result<Result<Piece, Wrong>, DataError> {
    let spans = match record {
        Record::Messages(messages) => match how.template {
            Some(template) => turns::spans(template, messages),
            None => {
                Err(Wrong::new("has messages, and the model has no chat template", NO_TEMPLATE))
            }
        },
        Record::Answer { prompt, response } => return Ok(Ok(answer(how, prompt, response)?)),
        Record::Text(text) => return Ok(Ok(Piece::text(how.vocabulary.encode(text, false)?))),
        Record::Labelled { text, label } => {
            return Ok(Ok(Piece::labelled(how.vocabulary, text, *label, how.window)?));
        }
    };
    match spans {
        Ok(spans) => Ok(Ok(turns::encode(how.vocabulary, &spans)?)),
        Err(wrong) => Ok(Err(wrong)),
    }
}

const NO_TEMPLATE: &str = "put the model's tokenizer_config.json or chat_template.jinja beside its \
    tokenizer.json, or write lines of {\"prompt\": …, \"response\": …}";

/// What a line says, however it is written.
fn line_digest(record: &Record) -> [u8; 32] {
    Sha256::digest(format!("{record:?}")).into()
}

/// A response is tokenized by itself, as a model writes it: its tokens are those of any prompt.
fn answer(how: &Training, prompt: &str, response: &str) -> Result<Piece, DataError> {
    let mut piece = Piece::default();
    piece.push(&how.vocabulary.begin(prompt)?, false);
    piece.push(&how.vocabulary.encode(response, false)?, true);
    piece.push(how.end.as_slice(), true);
    Ok(piece)
}

/// The documents of a file: the token that ends texts stands between them, written out.
fn texts(file: &Path, text: &str, how: &Training, cutter: &mut Cutter) -> Result<(), DataError> {
    let end = how.end.and_then(|it| how.vocabulary.text(&[i64::from(it)]));
    let end = end.filter(|it| !it.trim().is_empty());
    let parts: Vec<&str> = match &end {
        Some(end) => text.split(end.as_str()).collect(),
        None => vec![text],
    };
    let mut parts = parts.into_iter().map(str::trim).filter(|it| !it.is_empty()).peekable();
    let Some(first) = parts.next() else { return Err(DataError::Empty { file: file.into() }) };
    if parts.peek().is_none() {
        let ids = how.vocabulary.encode(first, false)?;
        cutter.add_whole(ids, how.held_out);
        return Ok(());
    }
    for part in std::iter::once(first).chain(parts) {
        let is_held_out = held_out(Sha256::digest(part).into(), how.held_out);
        cutter.add(Piece::text(how.vocabulary.encode(part, false)?), is_held_out);
    }
    Ok(())
}
