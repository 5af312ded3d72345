//! The chat template of a tokenizer: messages become the text that the model was trained on.
//!
//! Templates are Jinja, with what transformers gives them: blocks are trimmed, strings have the
//! methods of Python's, `raise_exception` ends it, and `strftime_now` is today, which is always the
//! same day here. They come with models, so that their size, their work and their result are bounded.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use minijinja::{
    Environment, Error, ErrorKind, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Value},
};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::DataError;
use onnxq_formats::gguf;

/// Stands for a text. No template writes it itself.
const TEXT: &str = "\u{1}text\u{1}";
/// Bytes of a template; the largest published ones have 20 kB.
const MOST_TEMPLATE: usize = 1 << 20;
/// Bytes of what it makes.
const MOST_RESULT: usize = 16 << 20;
/// Instructions, and so many more for each byte of the messages.
const FUEL: u64 = 1_000_000;
const FUEL_PER_BYTE: u64 = 16;
/// Blocks, macros and includes within each other.
const DEEPEST: usize = 64;

/// A template, and the tokens that it may write.
pub struct ChatTemplate {
    /// `tokenizer_config.json`.
    config: PathBuf,
    source: String,
    fields: serde_json::Value,
}

impl ChatTemplate {
    /// That of a tokenizer's configuration, or of `chat_template.jinja` or `chat_template.json` beside it.
    pub fn beside(config: &Path) -> Result<Option<ChatTemplate>, DataError> {
        let fields = fields(config)?;
        let own = match text(&config.with_file_name("chat_template.jinja"))? {
            Some(text) => Some(text),
            None => template(&fields),
        };
        let source = match own {
            Some(text) => Some(text),
            None => json(&config.with_file_name("chat_template.json"))?.as_ref().and_then(template),
        };
        let Some(source) = source else { return Ok(None) };
        if source.len() > MOST_TEMPLATE {
            return Err(too_long(config));
        }
        Ok(Some(ChatTemplate { config: config.to_owned(), source, fields }))
    }

    /// The messages, each its role and its text, as the model reads them. With `generation` an answer
    /// begins at the end.
    ///
    /// # Errors
    /// Why the template fails, which may be its own words.
    pub fn render(&self, messages: &[(&str, &str)], generation: bool) -> Result<String, String> {
        self.rendered(messages, generation).map_err(|error| format!("{error:#}"))
    }

    /// What stands behind an answer, if the template says.
    pub fn after_answer(&self) -> Option<String> {
        let text = self.render(&[("user", "a"), ("assistant", TEXT)], false).ok()?;
        text.split_once(TEXT).map(|it| it.1.to_owned())
    }

    fn rendered(&self, messages: &[(&str, &str)], generation: bool) -> Result<String, Error> {
        let size: usize = messages.iter().map(|it| it.0.len() + it.1.len()).sum();
        let environment = environment(FUEL + FUEL_PER_BYTE * size as u64)?;
        let template = environment.template_from_str(&self.source)?;
        let messages: Vec<Value> =
            messages.iter().map(|&(role, content)| context! { role, content }).collect();
        let context = context! {
            messages,
            add_generation_prompt => generation,
            bos_token => token(&self.fields, "bos_token"),
            eos_token => token(&self.fields, "eos_token"),
            pad_token => token(&self.fields, "pad_token"),
            unk_token => token(&self.fields, "unk_token"),
        };
        let mut result = Bounded::default();
        template.render_captured_to(context, &mut result)?;
        let invalid = |it: std::string::FromUtf8Error| {
            Error::new(ErrorKind::InvalidOperation, it.to_string())
        };
        String::from_utf8(result.0).map_err(invalid)
    }
}

/// What stands before and after a text that the user says. `None` if the tokenizer beside `config` has no
/// chat template.
///
/// # Errors
/// E601 if the template cannot be rendered, or writes the text not exactly once.
pub(super) fn around(config: &Path) -> Result<Option<(String, String)>, DataError> {
    let Some(template) = ChatTemplate::beside(config)? else { return Ok(None) };
    let failed = |fact: String| DataError::format(&template.config, fact);
    let rendered = template
        .render(&[("user", TEXT)], false)
        .map_err(|error| failed(format!("has a chat template that fails: {error}")))?;
    match rendered.split(TEXT).collect::<Vec<&str>>()[..] {
        [before, after] => Ok(Some((before.to_owned(), after.to_owned()))),
        _ => Err(failed("has a chat template that does not write what the user says once".into())),
    }
}

/// The configuration of a tokenizer, which a GGUF file has in itself; empty if there is none.
fn fields(config: &Path) -> Result<serde_json::Value, DataError> {
    if gguf::is_gguf(config) {
        return Ok(gguf::vocab::open(config)?.map(|it| it.tokenizer_config).unwrap_or_default());
    }
    Ok(json(config)?.unwrap_or_default())
}

/// The fields of a file, if it is there.
fn json(file: &Path) -> Result<Option<serde_json::Value>, DataError> {
    let json = match onnxq_ir::fs::read_file(file) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io(file)(error)),
    };
    let parsed = serde_json::from_slice(&json);
    Ok(Some(parsed.map_err(|error| DataError::format(file, format!("is no JSON: {error}")))?))
}

fn text(file: &Path) -> Result<Option<String>, DataError> {
    if std::fs::metadata(file).is_ok_and(|it| it.len() > MOST_TEMPLATE as u64) {
        return Err(too_long(file));
    }
    match onnxq_ir::fs::read_text(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::io(file)(error)),
    }
}

fn too_long(file: &Path) -> DataError {
    DataError::size(file, format!("has a chat template of more than {MOST_TEMPLATE} bytes"))
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

fn environment(fuel: u64) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(fuel));
    environment.set_recursion_limit(DEEPEST);
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
    Ok(environment)
}

/// Takes so many bytes and no more.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_RESULT {
            let fact = format!("it makes a text of more than {MOST_RESULT} bytes");
            return Err(io::Error::other(fact));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

    fn chat(template: &str) -> ChatTemplate {
        let fields = serde_json::json!({"bos_token": "<s>", "eos_token": {"content": "<end>"}});
        ChatTemplate { config: "tokenizer_config.json".into(), source: template.into(), fields }
    }

    #[test]
    fn messages_become_text() {
        let messages = [("system", "be kind"), ("user", " hi "), ("assistant", "hello")];
        let text = chat(CHATML).render(&messages, true).unwrap();
        let expected = "<s><|system|>be kind<end>\n<|user|>hi<end>\n<|assistant|>hello<end>\n\
            <|assistant|>";
        assert_eq!(text, expected);
        assert_eq!(chat(CHATML).after_answer().as_deref(), Some("<end>\n"));
        let strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}\
            {% endif %}{{ messages[0]['content'] }}";
        assert!(chat(strict).render(&messages, true).unwrap_err().contains("no system here"));
        assert_eq!(chat(strict).render(&messages[1..], true).unwrap(), " hi ");
    }

    #[test]
    fn a_template_cannot_do_without_end() {
        let nested = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
        for template in [
            "{% for a in range(9000) %}{{ messages[0].content * 9999 }}{% endfor %}",
            "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
            "{{ 'x' * 9999999999 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            &format!("{{{{ {nested} }}}}"),
        ] {
            let error = chat(template).render(&[("user", "abc")], true).unwrap_err();
            assert!(!error.is_empty(), "{template}");
        }
        let long = format!("{{{{ '{}' }}}}", "x".repeat(2 << 20));
        let error = of("{}", Some(&long)).unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
        // Long messages are no fault of the template.
        let long = "a b ".repeat(500_000);
        assert!(chat(CHATML).render(&[("user", &long)], true).unwrap().len() > 1_000_000);
    }
}
