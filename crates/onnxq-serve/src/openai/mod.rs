//! OpenAI's interface: what requests mean, and what answers look like.

mod answer;
mod asked;
mod chat;
mod classify;
mod completions;
mod embeddings;
mod fields;
mod listing;
mod logprobs;
mod stream;

pub(crate) use self::{
    asked::{Asked, deadline},
    chat::chat,
    classify::classify,
    completions::completions,
    embeddings::embeddings,
    fields::Fields,
    listing::{model, models, ps},
};
