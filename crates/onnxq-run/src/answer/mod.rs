//! Answering requests with one model: continuing a text, embedding, classifying.
//!
//! The types of `request` are what crosses the pipe between a server and its worker processes.

mod assets;
mod beside;
mod detokenize;
mod encode;
mod error;
mod generate;
mod kind;
mod likelihood;
mod model;
mod pooling;
mod prefix;
mod request;
mod sample;
mod settings;
mod spans;
mod stops;
#[cfg(all(test, feature = "runtime", feature = "text"))]
mod tests;
mod written;

pub use self::{
    beside::Beside,
    error::AnswerError,
    model::{Answers, Model},
    request::{
        Event, Finish, Generate, Label, Labelled, Message, ModelFacts, Place, Prompt, Sampling,
        Span, Task, Timing, TokenLogprob, TopLogprob, Usage, Vectors,
    },
};
