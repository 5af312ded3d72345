//! The targets: one row for each kind of untrusted input.

mod array;
mod explore;
mod gguf;
mod markup;
mod model;
mod packed;
mod recipe;
mod report;
mod text;
mod tokenizer;
mod vocab;

use std::fmt::Display;

use onnxq_ir::diag::Diagnostic;

use crate::mutate::Grammar;

/// What became of an input: a short word for each kind of acceptance (`Ok`) and refusal (`Err`).
/// Inputs with a new word are kept, because they reached something new.
pub type Outcome = Result<String, String>;

/// A reader of untrusted bytes.
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    /// Reads the input and goes on as far as it leads. Panics if an invariant is broken.
    pub run: fn(&[u8]) -> Outcome,
    pub grammar: Grammar,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to the reader.
    pub words: &'static [&'static str],
}

pub const TARGETS: &[&Target] = &[
    &array::TARGET,
    &gguf::TARGET,
    &model::TARGET,
    &packed::TARGET,
    &recipe::TARGET,
    &report::TARGET,
    &text::TARGET,
    &tokenizer::TARGET,
    &vocab::TARGET,
];

pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().find(|it| it.name == name)
}

/// The word of an error: its code, and its message without names and numbers.
fn refusal(error: &(impl Diagnostic + Display)) -> String {
    const LONGEST: usize = 60;
    let message = error.to_string();
    let words = message.split('`').step_by(2).flat_map(str::chars);
    let words = words.filter(|it| it.is_ascii_alphabetic() || *it == ' ').take(LONGEST);
    format!("{} {}", error.code(), words.collect::<String>())
}

/// As [`refusal`], of names that may have backquotes in them.
fn unnamed(error: &(impl Diagnostic + Display)) -> String {
    let text = error.to_string();
    match (text.split_once('`'), text.rsplit_once('`')) {
        (Some((before, _)), Some((_, after))) => {
            let letters = |it: &char| it.is_ascii_alphabetic() || *it == ' ';
            let words = before.chars().chain(after.chars()).filter(letters);
            format!("{} {}", error.code(), words.collect::<String>())
        }
        _ => refusal(error),
    }
}
