//! The fields of a request: taken one by one, so that what is left is unknown.

use serde_json::{Map, Value};

use crate::problem::Problem;
use onnxq_ir::untrusted::Untrusted;

/// Values inside values.
const MOST_LEVELS: usize = 64;
/// More warnings tell nobody anything.
const MOST_WARNINGS: usize = 16;

pub(crate) struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Fields, Problem> {
        if levels(bytes) > MOST_LEVELS {
            let what = format!("the body nests values deeper than {MOST_LEVELS} levels");
            return Err(Problem::request("invalid_json", what));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Problem::request("invalid_json", "the body is not UTF-8"))?;
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Fields { map }),
            Ok(_) => Err(Problem::request("invalid_json", "the body is not a JSON object")),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let what = format!("the body is not JSON (line {line}, column {column})");
                Err(Problem::request("invalid_json", what))
            }
        }
    }

    /// `null` stands for what is not there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|it| !it.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::field(key, "must be a text")),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, Problem> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(it)) => Ok(it),
            Some(_) => Err(Problem::field(key, "must be true or false")),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f32>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        // Beyond the range of 32 bits lies infinity, which nothing takes.
        let number = value.as_f64().map(|it| it as f32).filter(|it| it.is_finite());
        number.map(Some).ok_or_else(|| Problem::field(key, "must be a number"))
    }

    pub(super) fn count(&mut self, key: &str, most: usize) -> Result<Option<usize>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            let number = value.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0)?;
            (number <= u64::MAX as f64).then_some(number as u64)
        });
        match whole.and_then(|it| usize::try_from(it).ok()) {
            Some(it) if it <= most => Ok(Some(it)),
            _ => Err(Problem::field(key, format!("must be a whole number from 0 to {most}"))),
        }
    }

    /// Any whole number, also a negative one.
    pub(super) fn seed(&mut self, key: &str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        seed.map(Some).ok_or_else(|| Problem::field(key, "must be a whole number"))
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, key: &str, most: usize) -> Result<Vec<String>, Problem> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) if list.len() > most => {
                Err(Problem::field(key, format!("must have at most {most} items")))
            }
            Some(Value::Array(list)) => {
                let text = |it| match it {
                    Value::String(text) => Ok(text),
                    _ => Err(Problem::field(key, "must be a text or a list of texts")),
                };
                list.into_iter().map(text).collect()
            }
            Some(_) => Err(Problem::field(key, "must be a text or a list of texts")),
        }
    }

    /// A field that would change the answer's meaning, unless it says what is done anyway.
    pub(super) fn refuse(
        &mut self,
        key: &str,
        is_harmless: impl Fn(&Value) -> bool,
    ) -> Result<(), Problem> {
        match self.take(key) {
            Some(value) if !is_harmless(&value) => {
                Err(Problem::unsupported(key, "is not supported with this value"))
            }
            _ => Ok(()),
        }
    }

    /// Fields that change nothing of the answer.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        keys.iter().for_each(|it| drop(self.map.remove(*it)));
    }

    /// What the client should know: which fields nobody took.
    pub(super) fn warnings(self) -> Vec<String> {
        let unknown =
            self.map.keys().map(|it| format!("`{}` is unknown and ignored", Untrusted(it)));
        unknown.take(MOST_WARNINGS).collect()
    }
}

/// How deep brackets are nested, before a parser follows them.
fn levels(bytes: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => level += 1,
            b']' | b'}' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(level);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &[u8]) -> String {
        Fields::parse(body).map_or_else(|it| it.message, |_| "fine".into())
    }

    #[test]
    fn bodies_are_flat_json_objects() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes()
        };
        assert_eq!(code(&nested(63)), "fine");
        assert!(code(&nested(64)).contains("deeper than 64"));
        assert!(code(&nested(100_000)).contains("deeper than 64"));
        let brackets = format!("{{\"a\": \"{}\"}}", "[\\\"".repeat(200));
        assert_eq!(code(brackets.as_bytes()), "fine");
        assert_eq!(code(b"[]"), "the body is not a JSON object");
        assert_eq!(code(b""), "the body is not JSON (line 1, column 0)");
        assert_eq!(code(b"{\"a\": \"\xff\"}"), "the body is not UTF-8");
        assert_eq!(code(b"{\"temperature\": NaN}"), "the body is not JSON (line 1, column 17)");
        assert_eq!(code(b"{\"temperature\": 1e999}"), "the body is not JSON (line 1, column 21)");
    }

    #[test]
    fn what_is_taken_has_its_type_and_what_is_left_is_told() {
        let body =
            br#"{"a": 1.0, "b": -3, "c": "x", "d": null, "e": ["x", 1], "f": 1e300, "g": 1.5}"#;
        let mut fields = Fields::parse(body).unwrap();
        assert_eq!(fields.count("a", 5).unwrap(), Some(1));
        assert_eq!(fields.seed("b").unwrap(), Some(-3_i64 as u64));
        assert!(fields.flag("c").is_err());
        assert_eq!(fields.text("d").unwrap(), None);
        assert_eq!(fields.texts("e", 5).unwrap_err().param.unwrap(), "e");
        assert_eq!(fields.number("f").unwrap_err().message, "`f` must be a number");
        assert!(fields.count("g", 5).is_err());
        let mut fields = Fields::parse(b"{\"a\": 9, \"b\\u001b\": 1}").unwrap();
        let wrong = fields.count("a", 5).unwrap_err();
        assert_eq!(wrong.message, "`a` must be a whole number from 0 to 5");
        assert_eq!(fields.warnings(), ["`b\\u{1b}` is unknown and ignored"]);
    }
}
