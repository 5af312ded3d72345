//! What a chat model sees around a text: the chat template of its tokenizer, with the text as what the
//! user says.
//!
//! Templates are Jinja, with what transformers gives them: blocks are trimmed, strings have the
//! methods of Python's, `raise_exception` ends it, and `strftime_now` is today, which is always the
//! same day here.

use std::path::Path;

use minijinja::{
    Environment, Error, ErrorKind, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Value},
};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::DataError;

/// Stands for the text. No template writes it itself.
const TEXT: &str = "\u{1}text\u{1}";

/// What stands before and after a text that the user says. `None` if the tokenizer beside `config` has no
/// chat template.
///
/// # Errors
/// E601 if the template cannot be rendered, or writes the text not exactly once.
pub(super) fn around(config: &Path) -> Result<Option<(String, String)>, DataError> {
    let Some(fields) = read(config)? else { return Ok(None) };
    let beside = config.with_file_name("chat_template.jinja");
    let template = match onnxq_ir::fs::read_text(&beside) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => template(&fields),
        Err(error) => return Err(DataError::io(&beside)(error)),
    };
    let Some(template) = template else { return Ok(None) };
    let failed = |fact: String| DataError::format(config, fact);
    let rendered = render(&template, &fields)
        .map_err(|error| failed(format!("has a chat template that fails: {error:#}")))?;
    match rendered.split(TEXT).collect::<Vec<&str>>()[..] {
        [before, after] => Ok(Some((before.to_owned(), after.to_owned()))),
        _ => Err(failed("has a chat template that does not write what the user says once".into())),
    }
}

fn read(config: &Path) -> Result<Option<serde_json::Value>, DataError> {
    let json = match onnxq_ir::fs::read_file(config) {
        Ok(json) => json,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(config)(error)),
    };
    let parsed = serde_json::from_slice(&json);
    Ok(Some(parsed.map_err(|error| DataError::format(config, format!("is no JSON: {error}")))?))
}

/// The template of a configuration: the only one, or that which is called `default`.
fn template(fields: &serde_json::Value) -> Option<String> {
    match fields.get("chat_template")? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Array(list) => {
            let default = list.iter().find(|it| it["name"] == "default");
            Some(default?["template"].as_str()?.to_owned())
        }
        _ => None,
    }
}

/// A token as configurations write it: its text, or an object with it.
fn token(fields: &serde_json::Value, name: &str) -> String {
    let token = &fields[name];
    token.as_str().or(token["content"].as_str()).unwrap_or_default().to_owned()
}

fn render(template: &str, fields: &serde_json::Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(1_000_000));
    environment.set_unknown_method_callback(unknown_method_callback);
    let raise = |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    };
    environment.add_function("raise_exception", raise);
    environment.add_function("strftime_now", |_: String| "26 Jul 2024");
    environment.add_filter("tojson", |value: Value, _: Kwargs| -> Result<String, Error> {
        let json = serde_json::to_string(&value);
        json.map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
    environment.render_str(
        template,
        context! {
            messages => [context! { role => "user", content => TEXT }],
            add_generation_prompt => false,
            bos_token => token(fields, "bos_token"),
            eos_token => token(fields, "eos_token"),
            pad_token => token(fields, "pad_token"),
            unk_token => token(fields, "unk_token"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, beside: Option<&str>) -> Result<Option<(String, String)>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tokenizer_config.json");
        std::fs::write(&config, json).unwrap();
        if let Some(text) = beside {
            std::fs::write(folder.path().join("chat_template.jinja"), text).unwrap();
        }
        around(&config)
    }

    const CHATML: &str = "{% for message in messages %}\n  {% if loop.first %}{{ bos_token }}\
        {% endif %}\n{{ '<|' + message['role'] + '|>' + message['content'].strip() + '<end>' }}\n\
        {% endfor %}\n{% if add_generation_prompt %}<|assistant|>{% endif %}";

    #[test]
    fn the_template_stands_around_the_text() {
        let json = serde_json::json!({
            "chat_template": CHATML, "bos_token": {"content": "<s>"}, "eos_token": null,
        });
        let expected = Some(("<s><|user|>".to_owned(), "<end>\n".to_owned()));
        assert_eq!(of(&json.to_string(), None).unwrap(), expected);
        let list = serde_json::json!({"chat_template": [
            {"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}
        ], "bos_token": "<s>"});
        assert_eq!(of(&list.to_string(), None).unwrap(), expected);
        assert_eq!(of("{\"bos_token\": \"<s>\"}", Some(CHATML)).unwrap(), expected);
    }

    #[test]
    fn no_template_and_bad_ones() {
        assert_eq!(of("{}", None).unwrap(), None);
        for (template, fact) in [
            ("{% for", "chat template that fails"),
            ("{{ raise_exception('no system') }}", "no system"),
            ("hello", "does not write what the user says once"),
            ("{% for a in range(9999999) %}{% endfor %}", "chat template that fails"),
        ] {
            let error = of("{}", Some(template)).unwrap_err().to_string();
            assert!(error.contains(fact), "{template}: {error}");
        }
    }
}
