//! What a model does with texts: by its inputs and outputs, and where those leave it open by its files.

use super::{AnswerError, Task, assets::Assets};
use crate::data::{Role, role};
use onnxq_ir::{Model, Value, ValueId};

/// Outputs with one vector for a text.
const WHOLE: &[&str] = &["sentence_embedding", "text_embeds", "embeddings"];
/// Outputs with a vector for each token.
const TOKENS: &[&str] = &["token_embeddings", "last_hidden_state", "hidden_states"];

/// A task, and the output that is its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    pub task: Task,
    pub output: String,
    /// The output is one vector for a text.
    pub whole: bool,
}

/// # Errors
/// E627 if the model has no output for the task, or none for any.
pub(super) fn kind(
    model: &Model,
    assets: &Assets,
    asked: Option<Task>,
) -> Result<Kind, AnswerError> {
    let graph = model.graph(model.main);
    let value = |id: &ValueId| model.value(*id);
    let inputs: Vec<&Value> = graph.inputs.iter().map(value).collect();
    let outputs: Vec<&Value> = graph.outputs.iter().map(value).collect();
    if !inputs.iter().any(|it| &*it.name == "input_ids") {
        let fact = "it has no input `input_ids`, so that it reads no text";
        return Err(AnswerError::task(asked.unwrap_or(Task::Generate), fact));
    }
    let logits = outputs.iter().find(|it| it.name.contains("logits"));
    let named = |names: &[&str]| outputs.iter().find(|it| names.contains(&&*it.name)).copied();
    let (whole, tokens) = (named(WHOLE), named(TOKENS));
    let caches = inputs.iter().any(|it| role(&it.name) == Some(Role::Past));
    let task = asked.unwrap_or_else(|| match logits {
        Some(it) => of_logits(it, caches, assets),
        None => Task::Embed,
    });
    let output = match task {
        Task::Embed => whole.or(tokens),
        Task::Generate | Task::Classify => logits.copied(),
    };
    let Some(output) = output else {
        let names: Vec<&str> = outputs.iter().map(|it| &*it.name).collect();
        let fact = format!("its outputs are {}", names.join(", "));
        return Err(AnswerError::task(task, fact));
    };
    Ok(Kind { task, output: output.name.to_string(), whole: whole.is_some() })
}

/// One row for a text, or a row of a few labels for each token, is a classifier's.
fn of_logits(logits: &Value, caches: bool, assets: &Assets) -> Task {
    let shape = logits.ty.as_ref().and_then(|it| it.shape.as_ref());
    let architecture = assets.config["architectures"][0].as_str().unwrap_or_default();
    let says = |what: &str| architecture.contains(what);
    if caches || says("ForCausalLM") || says("LMHeadModel") {
        return Task::Generate;
    }
    let is_row = shape.is_some_and(|it| it.len() == 2);
    let labels = assets.config["id2label"].as_object().map(|it| it.len());
    let width = shape.and_then(|it| it.last()?.fixed());
    let of_labels = labels.is_some() && labels == width;
    match says("Classification") || is_row || of_labels || assets.labels.is_some() {
        true => Task::Classify,
        false => Task::Generate,
    }
}
