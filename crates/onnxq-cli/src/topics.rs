//! What `onnxq explain` knows: codes, checks, metrics, and the words of recipes.

use std::borrow::Cow;

use serde_json::Value;

use onnxq_ir::{
    diag::{Code, EXIT_GATE},
    suggest::suggest,
};
use onnxq_numerics::{observe::ObserverSpec, solve::SolverSpec, specs::Spec};
use onnxq_quant::{
    format::FORMATS,
    recipe::{
        self, SHIPPED,
        metrics::{Better, METRICS, Metric},
    },
    transform::TransformSpec,
};
use onnxq_rewrite::lint::CHECKS;

/// What is known of a word.
pub(crate) struct Topic {
    /// The heading it is listed under.
    pub kind: &'static str,
    pub name: &'static str,
    /// What a program ends with that meets it; words of recipes have none.
    pub exit: Option<u8>,
    pub text: Cow<'static, str>,
}

/// Everything there is, kind by kind.
pub(crate) fn all() -> Vec<Topic> {
    let codes = Code::ALL.iter().map(|code| Topic {
        kind: "code",
        name: code.name(),
        exit: Some(code.exit()),
        text: of_code(*code),
    });
    let checks = CHECKS.iter().map(|check| Topic {
        kind: "check",
        name: check.code,
        exit: Some(EXIT_GATE),
        text: check.help.into(),
    });
    let metrics = METRICS.iter().map(|row| Topic {
        kind: "metric",
        name: row.name,
        exit: Some(EXIT_GATE),
        text: metric(row).into(),
    });
    codes.chain(checks).chain(metrics).chain(words()).collect()
}

/// What is known of a code, with what a table elsewhere knows of it.
fn of_code(code: Code) -> Cow<'static, str> {
    match code {
        Code::E640 => {
            let passed = onnxq_train::operators().join(", ");
            format!("{} Gradients pass {passed}.", code.text()).into()
        }
        _ => code.text().into(),
    }
}

/// The words of recipes.
fn words() -> impl Iterator<Item = Topic> {
    let word = |kind, name, text| Topic { kind, name, exit: None, text };
    let recipes = SHIPPED.iter().map(move |row| word("recipe", row.0, described(row.0).into()));
    let formats = FORMATS.iter().map(move |it| word("format", it.name, it.help.into()));
    let schema: Value = serde_json::from_str(&recipe::schema()).unwrap_or_default();
    let named = [
        (SolverSpec::KIND, SolverSpec::NAMES),
        (TransformSpec::KIND, TransformSpec::NAMES),
        (ObserverSpec::KIND, ObserverSpec::NAMES),
    ];
    let specs: Vec<Topic> = named
        .iter()
        .flat_map(|(kind, names)| names.iter().map(|name| (*kind, *name)))
        .map(|(kind, name)| word(kind, name, of_schema(&schema, kind, name).into()))
        .collect();
    recipes.chain(formats).chain(specs)
}

fn described(name: &str) -> String {
    let description = recipe::load(name).map(|it| it.description).unwrap_or_default();
    format!("{description} `onnxq recipe show {name}` prints it.")
}

/// What the schema of recipes says of a word that may have settings.
fn of_schema(schema: &Value, kind: &str, name: &str) -> String {
    let groups = ["Settings", "TransformSettings", "ObserverSettings"];
    let mut choices = groups
        .iter()
        .filter_map(|group| schema["definitions"][*group]["oneOf"].as_array())
        .flatten();
    let reference = choices.find_map(|it| it["properties"][name]["$ref"].as_str());
    let definition = reference.and_then(|it| schema.pointer(it.strip_prefix('#')?));
    let Some(definition) = definition else {
        return format!("The {kind} that needs no settings and no data: `{name}`.");
    };
    let text = definition["description"].as_str().unwrap_or_default().replace('\n', " ");
    let keys: Vec<String> = definition["properties"]
        .as_object()
        .map(|it| it.keys().map(|key| format!("`{key}`")).collect())
        .unwrap_or_default();
    match keys.is_empty() {
        true => text,
        false => format!("{text} Settings: {}.", keys.join(", ")),
    }
}

/// What a gate can limit, and by which statistics.
fn metric(row: &Metric) -> String {
    let better = if row.better == Better::Lower { "lower" } else { "higher" };
    let statistics = match row.statistics {
        [] => String::new(),
        list => format!("; as {}.{}", row.name, list.join(", .")),
    };
    format!("A gate can limit it: {}; {better} is better{statistics}.", row.help)
}

/// The name that a word means: `kl.mean<=0.05` is about `kl`.
pub(crate) fn find(word: &str) -> Result<&'static str, String> {
    let topics = all();
    let base = word.split(['.', '<', '>', '=']).next().unwrap_or(word);
    let same = |name: &str| topics.iter().find(|it| it.name.eq_ignore_ascii_case(name));
    if let Some(topic) = same(word).or_else(|| same(base)) {
        return Ok(topic.name);
    }
    let names = || topics.iter().map(|it| it.name);
    let lower = base.to_ascii_lowercase();
    let mut begins = names().filter(|name| lower.len() >= 3 && name.starts_with(&lower));
    let near = begins.next().or_else(|| suggest(base, names()));
    Err(match near {
        Some(near) => format!("nothing is called so; did you mean {near}?"),
        None => "nothing is called so; `onnxq explain` lists codes, checks, metrics, recipes, \
                 formats, solvers, transforms and observers"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known_and_says_something() {
        for topic in all() {
            assert_eq!(find(&topic.name.to_lowercase()).unwrap(), topic.name);
            assert!(topic.text.len() > 10, "{} {}", topic.kind, topic.name);
        }
        assert_eq!(find("kl.mean<=0.05").unwrap(), "kl");
        assert!(find("sqnr").unwrap_err().ends_with("did you mean sqnr_db?"));
        assert!(find("E20").unwrap_err().ends_with("did you mean E120?"));
        assert!(find("gtpq").unwrap_err().ends_with("did you mean gptq?"));
    }
}
