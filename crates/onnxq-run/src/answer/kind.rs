//! What a model does with texts: by its inputs and outputs, and where those leave it open by its files.

use super::{AnswerError, Task, assets::Assets};
use crate::data::{Role, role};
use onnxq_ir::{Model, Value, ValueId, untrusted::Untrusted};

/// Outputs with one vector for a text.
const WHOLE: &[&str] = &["sentence_embedding", "text_embeds", "embeddings"];
/// Outputs with a vector for each token.
const TOKENS: &[&str] = &["token_embeddings", "last_hidden_state", "hidden_states"];

/// Names of outputs in an error.
const SHOWN: usize = 8;

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
    let known = |it: &&&Value| &*it.name == "input_ids" || role(&it.name).is_some();
    if let Some(other) = inputs.iter().find(|it| !known(it)) {
        let fact = format!("nobody knows what its input `{}` wants", Untrusted(&other.name));
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
        let names: Vec<String> =
            outputs.iter().take(SHOWN).map(|it| format!("`{}`", Untrusted(&it.name))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Place;
    use onnxq_ir::diag::{Code, Diagnostic};

    fn of(ends: &str, config: &str, asked: Option<Task>) -> Result<Kind, AnswerError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("model.onnx", ""), ("config.json", config)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let place = Place { model: folder.path().to_owned(), ..Place::default() };
        let (inputs, outputs) = ends.split_once(" => ").unwrap();
        let nodes: Vec<String> = outputs
            .split("; ")
            .map(|it| format!("{} = Identity (input_ids)", it.rsplit(' ').next().unwrap()))
            .collect();
        let outputs = outputs.replace("; ", ", ");
        let text = format!("main ({inputs}) => ({outputs}) {{ {} }}", nodes.join("\n"));
        let model = onnxq_ir::text::parse(&text).unwrap();
        kind(&model, &Assets::find(&place).unwrap(), asked)
    }

    #[test]
    fn outputs_and_files_say_the_task() {
        let ids = "int64[b,t] input_ids";
        let past = format!("{ids}, float[b,2,p,8] past_key_0");
        let ner = r#"{"architectures": ["BertForTokenClassification"]}"#;
        let labels = r#"{"id2label": {"0": "a", "1": "b"}}"#;
        let cases = [
            (format!("{ids} => float[b,t,9] logits"), "{}", Task::Generate, "logits"),
            (format!("{ids} => float[b,t,2] logits"), labels, Task::Classify, "logits"),
            (format!("{ids} => float[b,t,9] logits"), ner, Task::Classify, "logits"),
            (format!("{ids} => float[b,3] logits"), "{}", Task::Classify, "logits"),
            (format!("{past} => float[b,t,2] logits"), labels, Task::Generate, "logits"),
            (
                format!("{ids} => float[b,t,4] last_hidden_state"),
                "{}",
                Task::Embed,
                "last_hidden_state",
            ),
            (
                format!("{ids} => float[b,t,4] token_embeddings; float[b,4] sentence_embedding"),
                "{}",
                Task::Embed,
                "sentence_embedding",
            ),
        ];
        for (ends, config, task, output) in cases {
            let kind = of(&ends, config, None).unwrap();
            assert_eq!((kind.task, &*kind.output), (task, output), "{ends}");
        }
        let asked = of(&format!("{ids} => float[b,3] logits"), "{}", Some(Task::Generate));
        assert_eq!(asked.unwrap().task, Task::Generate);
    }

    #[test]
    fn what_is_none_of_these_says_why() {
        let unknown = "int64[b,t] input_ids, float[b,3] pixel_values => float[b,t,9] logits";
        let error = of(unknown, "{}", None).unwrap_err();
        assert_eq!(error.code(), Code::E627);
        assert!(error.to_string().contains("`pixel_values`"), "{error}");
        let error = of("int64[b,t] input_ids => float[b,2] boxes", "{}", None).unwrap_err();
        assert!(error.to_string().contains("its outputs are `boxes`"), "{error}");
    }
}
