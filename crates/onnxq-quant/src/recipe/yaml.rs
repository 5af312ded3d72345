//! The only user of the YAML crate: checked parsing with places, and printing.

use std::{borrow::Cow, sync::Arc};

use serde::de::DeserializeOwned;
use serde_yaml::{
    Error, MergeKeyPolicy, Options, UserMessageFormatter,
    granit_parser::{self, Event, Marker, Parser, ScalarStyle, Tag},
};

use super::{Place, Position, Recipe, RecipeError, schema::ACTIVATION};
use crate::transform::TransformSpec;
use onnxq_ir::untrusted::Untrusted;
use onnxq_numerics::{observe::ObserverSpec, solve::SolverSpec, specs::Spec};

/// Deeper nesting is neither a recipe nor a description of data.
const MAX_DEPTH: usize = 32;

/// A recipe as YAML, without its parents and comments.
pub fn to_yaml(recipe: &Recipe) -> String {
    serde_yaml::to_string(recipe).expect("a recipe is plain data")
}

/// Reads a document, and says where its values stand.
pub fn parse<T: DeserializeOwned>(text: &str, file: &str) -> Result<(T, Place), RecipeError> {
    let place = scan(text, file)?;
    let value = serde_yaml::from_str_with_options(text, options())
        .map_err(|error| translate(error.without_snippet(), &place))?;
    Ok((value, place))
}

fn options() -> Options {
    serde_yaml::options! {
        strict_booleans: true,
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
    }
}

/// The places of all values. Refuses what a reader of the file would not expect.
fn scan(text: &str, file: &str) -> Result<Place, RecipeError> {
    let mut scanner = Scanner { file: file.into(), open: Vec::new(), root: None };
    let options = granit_parser::options! { emit_unresolved_aliases: true };
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            scanner.refuse(error.marker(), format!("this is not YAML: {}", error.info()))
        })?;
        scanner.event(&event, &span.start)?;
    }
    scanner.root.ok_or_else(|| {
        let at = Position { file: scanner.file.clone(), line: 1, column: 1 };
        RecipeError::Syntax { at, what: "the file is empty".to_owned() }
    })
}

struct Scanner {
    file: Arc<str>,
    /// Collections that have begun and not ended.
    open: Vec<Collection>,
    root: Option<Place>,
}

struct Collection {
    place: Place,
    is_mapping: bool,
    /// The key whose value comes next.
    key: Option<String>,
}

impl Scanner {
    fn event(&mut self, event: &Event, at: &Marker) -> Result<(), RecipeError> {
        let is_mapping = matches!(event, Event::MappingStart(..));
        match event {
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                return Err(self.refuse(at, "aliases are not allowed"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check(at, *anchor, tag)?;
                self.scalar(text, *style, at)?;
            }
            Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
                self.check(at, *anchor, tag)?;
                self.start(is_mapping, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    self.add(done.place);
                }
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                return Err(self.refuse(at, "a file holds one document"));
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, at: &Marker, anchor: usize, tag: &Option<Cow<Tag>>) -> Result<(), RecipeError> {
        if anchor != 0 {
            return Err(self.refuse(at, "anchors are not allowed"));
        }
        if tag.is_some() {
            return Err(self.refuse(at, "tags are not allowed"));
        }
        Ok(())
    }

    fn start(&mut self, is_mapping: bool, at: &Marker) -> Result<(), RecipeError> {
        if self.open.len() == MAX_DEPTH {
            return Err(self.refuse(at, format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        if self.expects_key() {
            return Err(self.refuse(at, "a key is not a text"));
        }
        self.open.push(Collection { place: self.position(at).into(), is_mapping, key: None });
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: &Marker) -> Result<(), RecipeError> {
        if !self.expects_key() {
            self.add(self.position(at).into());
            return Ok(());
        }
        if text == "<<" && style == ScalarStyle::Plain {
            return Err(self.refuse(at, "merge keys are not allowed"));
        }
        if let Some(top) = self.open.last_mut() {
            top.key = Some(text.to_owned());
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|it| it.is_mapping && it.key.is_none())
    }

    fn add(&mut self, place: Place) {
        let Some(top) = self.open.last_mut() else {
            self.root = Some(place);
            return;
        };
        let key = top.key.take().unwrap_or_else(|| top.place.inner.len().to_string());
        top.place.inner.insert(key, place);
    }

    fn position(&self, at: &Marker) -> Position {
        let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        Position { file: self.file.clone(), line: number(at.line()), column: number(at.col() + 1) }
    }

    fn refuse(&self, at: &Marker, what: impl Into<String>) -> RecipeError {
        RecipeError::Syntax { at: self.position(at), what: what.into() }
    }
}

/// Our words for what serde found.
fn translate(error: &Error, root: &Place) -> RecipeError {
    let mut at = root.position.clone();
    if let Some(it) = error.location() {
        let number = |it: u64| u32::try_from(it).unwrap_or(u32::MAX);
        (at.line, at.column) = (number(it.line()), number(it.column()));
    }
    let found = root.find(&at);
    let mut key = found.map(|it| it.0);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            return RecipeError::Key { at, key: field.clone(), known: expected.clone() };
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            // These have a `Deserialize` of our own, so they are reported at what is around them.
            let own = kind_of(expected);
            let what = own.or(key).unwrap_or("value").to_owned();
            if own.is_some() {
                at = first_after(root, &what, &at).unwrap_or(at);
            }
            return RecipeError::Word { at, what, word: variant.clone(), known: expected.clone() };
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or_default();
            let what = format!("key `{}` appears twice", Untrusted(key));
            return RecipeError::Syntax { at, what };
        }
        // What our own `Deserialize` refuses is reported at the mapping around it.
        Error::SerdeInvalidType { expected, .. } if expected == ACTIVATION => {
            key = Some("activation");
            at = found.map_or(at, |it| it.1.at("activation"));
        }
        _ => {}
    }
    let subject = key.map_or("value".to_owned(), |it| format!("`{}`", Untrusted(it)));
    RecipeError::Value { at, what: describe(error, &subject) }
}

/// What the words are that would have been known, if they are algorithms: `solver`.
fn kind_of(expected: &[&str]) -> Option<&'static str> {
    fn kind<S: Spec>(expected: &[&str]) -> Option<&'static str> {
        let is_own = expected == S::NAMES || expected == S::CONFIGURABLE;
        is_own.then_some(S::KIND)
    }
    kind::<SolverSpec>(expected)
        .or_else(|| kind::<ObserverSpec>(expected))
        .or_else(|| kind::<TransformSpec>(expected))
}

/// Where the first value of `key` stands that comes after `at`.
fn first_after(place: &Place, key: &str, at: &Position) -> Option<Position> {
    let order = |it: &Position| (it.line, it.column);
    let own = place.inner.get(key).map(|it| it.position.clone());
    let inner = place.inner.values().filter_map(|it| first_after(it, key, at));
    let all = own.into_iter().chain(inner);
    all.filter(|it| order(it) >= order(at)).min_by_key(order)
}

fn describe(error: &Error, subject: &str) -> String {
    match error {
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::InvalidBooleanStrict { .. } => format!("{subject} is neither true nor false"),
        Error::InvalidScalar { ty, .. } if ty.starts_with('f') => {
            format!("{subject} is not a number")
        }
        Error::InvalidScalar { .. } => format!("{subject} is not a whole number"),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("{subject} is {unexpected}, expected {expected}")
        }
        Error::Unexpected { expected, .. } if expected.contains("scalar") => {
            format!("{subject} is not a single value")
        }
        Error::Unexpected { expected, .. } if expected.contains("sequence") => {
            format!("{subject} is not a list")
        }
        Error::Unexpected { expected, .. } if expected.contains("mapping") => {
            format!("{subject} is not a mapping")
        }
        other => format!("{subject}: {}", message(other)),
    }
}

/// The text of an error without its place, which we print ourselves.
fn message(error: &Error) -> String {
    let text = error.render_with_formatter(&UserMessageFormatter);
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::Diagnostic;

    fn check(text: &str) -> String {
        let head = "onnxq: 1\nname: x\n";
        match parse::<Recipe>(&format!("{head}{text}"), "x.yaml") {
            Ok(_) => "ok".to_owned(),
            Err(error) => {
                let hint = error.hint().map_or(String::new(), |it| format!(" ({it})"));
                format!("{} {error}{hint}", error.code())
            }
        }
    }

    #[test]
    fn errors_name_the_place_and_the_near_miss() {
        let weight = "quantize:\n  - ops: [Gemm]\n    weight: ";
        let cases = [
            ("quantise: []", "E701 x.yaml:3:1: unknown key `quantise` (did you mean `quantize`?)"),
            (
                "quantize:\n  - weight: {bits: 4}",
                "E701 x.yaml:4:14: unknown key `bits` \
                 (known here: dtype, symmetric, granularity, range, scales, solver, as_stored)",
            ),
            (
                &format!("{weight}{{solver: rtnn}}"),
                "E703 x.yaml:5:22: unknown solver `rtnn` (did you mean `rtn`?)",
            ),
            (
                "quantize:\n  - activation: {observer: medan}",
                "E703 x.yaml:4:28: unknown observer `medan` \
                 (known here: min_max, average, percentile, entropy, mse)",
            ),
            (
                &format!("{weight}{{solver: {{gptq: {{grid: best}}}}}}"),
                "E703 x.yaml:5:36: unknown grid `best` (known here: rtn, mse, imatrix)",
            ),
            (
                &format!("{weight}{{granularity: {{blok: 32}}}}"),
                "E703 x.yaml:5:28: unknown value `blok` (did you mean `block`?)",
            ),
            (
                &format!("{weight}{{symmetric: yes}}"),
                "E703 x.yaml:5:25: `symmetric` is neither true nor false",
            ),
            (
                "quantize:\n  - min_elements: many",
                "E703 x.yaml:4:19: `min_elements` is not a whole number",
            ),
            (
                "quantize:\n  - activation: {granularty: row}",
                "E701 x.yaml:4:18: unknown key `granularty` (did you mean `granularity`?)",
            ),
            (
                "quantize:\n  - activation: non",
                "E703 x.yaml:4:17: `activation` is string \"non\", expected `none` or a mapping",
            ),
            ("quantize: 5", "E703 x.yaml:3:11: `quantize` is not a list"),
            ("quantize: [5]", "E703 x.yaml:3:12: `quantize` is not a mapping"),
            (
                "quantize: [{weight: {solver: {rtn: 5}}}]",
                "E703 x.yaml:3:31: unknown solver `rtn` (known here: mse, hqq, imatrix, gptq, signround)",
            ),
            (
                "quantize: [{min_elements: -1}]",
                "E703 x.yaml:3:27: `min_elements` is not a whole number",
            ),
            ("gates: [{metric: kl, max: low}]", "E703 x.yaml:3:27: `max` is not a number"),
            ("name: y", "E701 x.yaml:3:1: key `name` appears twice"),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected, "{text}");
        }
    }

    #[test]
    fn what_readers_do_not_expect_is_refused() {
        let deep = |levels| format!("prepare: {}{}", "[".repeat(levels), "]".repeat(levels));
        let (deep, deeper) = (deep(32), deep(20_000));
        let cases = [
            ("description: &a x", "E701 x.yaml:3:17: anchors are not allowed"),
            ("description: *a", "E701 x.yaml:3:14: aliases are not allowed"),
            ("description: !!str x", "E701 x.yaml:3:20: tags are not allowed"),
            ("<<: {extends: y}", "E701 x.yaml:3:1: merge keys are not allowed"),
            ("---\nname: y", "E701 x.yaml:3:1: a file holds one document"),
            ("? [a]\n: b", "E701 x.yaml:3:3: a key is not a text"),
            (&deep, "E701 x.yaml:3:41: values nest deeper than 32 levels"),
            (&deeper, "E701 x.yaml:3:"),
            ("quantize: [", "E701 x.yaml:"),
        ];
        for (text, expected) in cases {
            let found = check(text);
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
        let empty = parse::<Recipe>("# nothing\n", "x.yaml").unwrap_err();
        assert_eq!(empty.to_string(), "x.yaml:1:1: the file is empty");
        let missing = parse::<Recipe>("onnxq: 1\n", "x.yaml").unwrap_err();
        assert_eq!(missing.to_string(), "x.yaml:1:1: `name` is missing");
    }
}
