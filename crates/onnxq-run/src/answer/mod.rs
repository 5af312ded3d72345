//! Answering requests with one model: continuing a text, embedding, classifying.
//!
//! The types here are what crosses the pipe between a server and its worker processes.

mod request;

pub use self::request::{
    Event, Finish, Generate, Label, Labelled, Message, ModelFacts, Place, Prompt, Sampling, Span,
    Task, Timing, TokenLogprob, TopLogprob, Usage, Vectors,
};
