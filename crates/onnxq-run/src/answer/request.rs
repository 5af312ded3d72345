//! What a model is asked, and what it answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a model does with texts. It follows from the model unless the user says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Continues a text token by token.
    Generate,
    /// One label for a text, or one for each span of it.
    Classify,
    /// One vector for a text.
    Embed,
}

/// Where a model is, and what belongs to it; what is not given is looked for beside the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// A file, or a folder as `onnxq import` writes it.
    pub model: PathBuf,
    /// `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// A file with a label in each line.
    pub labels: Option<PathBuf>,
    /// `None`: what the model says of itself.
    pub task: Option<Task>,
    /// Tokens of prompt and answer together; at most, and by default, what the model was made for.
    pub context: Option<usize>,
    /// Threads within an operator; 0: the engine chooses.
    pub threads: usize,
}

/// What is known of a model once it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    pub task: Task,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Of the cache, for each token; 0 without one.
    pub bytes_per_token: u64,
    /// There is a template that makes a prompt of messages.
    pub chat: bool,
    /// Tokens are chosen by chance unless a request says otherwise, as `generation_config.json` wants.
    #[serde(default)]
    pub samples: bool,
    /// What the user should know: no cache, no template, an unknown ending token.
    pub notes: Vec<String>,
}

/// What one side of a conversation says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    pub content: String,
}

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// By the chat template.
    Chat(Vec<Message>),
    /// As it is; tokens that the tokenizer puts in front are put there.
    Text(String),
    /// Tokens as they are.
    Ids(Vec<u32>),
}

/// How the next token is chosen. `None` everywhere: what the model's `generation_config.json` says,
/// else greedy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// 0: always the most likely token (greedy).
    pub temperature: Option<f32>,
    /// Only the `k` most likely tokens; 0: all.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that have this probability together (Holtzman et al. 2020).
    pub top_p: Option<f32>,
    /// Only tokens with this share of the most likely one's probability (Nguyen et al. 2024).
    pub min_p: Option<f32>,
    /// Logits of tokens that are in the text already are divided by it if positive, else multiplied
    /// (Keskar et al. 2019).
    pub repetition_penalty: Option<f32>,
    /// Equal seeds give equal answers; `None`: another one each time.
    pub seed: Option<u64>,
}

/// A request to continue a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    pub prompt: Prompt,
    #[serde(default)]
    pub sampling: Sampling,
    /// `None`: as many as the context has room for.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// The answer ends before the first of these texts.
    #[serde(default)]
    pub stop: Vec<String>,
    /// For each token, how likely it was, and the so many most likely ones.
    #[serde(default)]
    pub logprobs: Option<usize>,
    /// The answer begins with the prompt and, if asked for, its log-probabilities.
    #[serde(default)]
    pub echo: bool,
}

/// A token that might have come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    pub token: String,
    pub id: u32,
    pub logprob: f32,
}

/// A token, and how likely the model held it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    pub token: String,
    pub id: u32,
    /// `None` of the first token of a prompt.
    pub logprob: Option<f32>,
    pub top: Vec<TopLogprob>,
}

/// Tokens that were read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// Of the prompt, tokens that an earlier request had read already.
    pub cached_tokens: usize,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Reading the prompt, to the first token.
    pub prefill_ms: f64,
    /// The other tokens.
    pub decode_ms: f64,
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model said so, or one of the texts that end it came.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
    /// Nobody waits any more.
    Cancelled,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// More text: whole characters, and nothing that may belong to a text that ends the answer.
    Text { text: String, logprobs: Vec<TokenLogprob> },
    /// The last one.
    Done { finish: Finish, usage: Usage, timing: Timing },
}

/// One vector for each text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vectors {
    pub vectors: Vec<Vec<f32>>,
    pub tokens: usize,
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    pub label: String,
    pub score: f32,
}

/// A part of a text that has a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub label: String,
    pub score: f32,
    /// Bytes of the text.
    pub start: usize,
    pub end: usize,
    pub text: String,
}

/// What a classifier says of a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    /// All labels, the most likely one first; empty of a model that labels tokens.
    pub labels: Vec<Label>,
    /// Of a model that labels tokens.
    pub spans: Vec<Span>,
    pub tokens: usize,
}
