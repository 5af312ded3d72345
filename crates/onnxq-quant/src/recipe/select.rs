//! Which entries of a recipe match a node, and what they say together.

use std::collections::BTreeSet;

use regex::Regex;

use super::{
    Activation, ActivationSpec, Entry, FormatName, Position, Recipe, RecipeError, Weight,
    WeightSpec,
};
use onnxq_ir::suggest::suggest;

/// A recipe ready to match nodes; counts what its patterns match.
pub struct Selector<'a> {
    recipe: &'a Recipe,
    /// For each entry.
    rules: Vec<Rule>,
    /// Parts of names seen so far, to guess what a pattern was meant to be.
    parts: BTreeSet<String>,
}

/// What entries look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate<'a> {
    /// As printed.
    pub op: &'a str,
    pub name: &'a str,
    /// Of the weight.
    pub elements: usize,
    pub after_activation_function: bool,
    /// Whether its result is an output of the model.
    pub head: bool,
    /// Whether its result is the values of an attention.
    pub attention_value: bool,
    /// Whether its activation is the result of an attention.
    pub after_attention: bool,
    /// Whether it reads or writes a rotated stream.
    pub rotated: bool,
    /// Whether there is calibration data.
    pub calibrated: bool,
    /// Whether it is a convolution of each channel by itself.
    pub depthwise: bool,
    /// Whether its weight is several matrices.
    pub batched: bool,
    /// Multiplications per number that it reads or writes.
    pub intensity: u64,
    /// Values of `min_intensity` that the chain of convolutions around it reaches.
    pub chained: &'a [u64],
    /// Whether it has no weight: entries that say how to store one are not for it.
    pub weightless: bool,
}

impl Candidate<'_> {
    fn does_enough(&self, min: u64) -> bool {
        self.intensity >= min || self.chained.contains(&min)
    }
}

/// The settings of all entries that match a node.
#[derive(Clone, Debug)]
pub struct Merged {
    /// `None`: no entry says how to store the weight.
    pub weight: Option<Weight>,
    /// `None`: stays in float.
    pub activation: Option<Activation>,
    /// In order of preference.
    pub format: Vec<FormatName>,
    pub skip: bool,
    pub reason: Option<String>,
    /// Indices of the entries that matched.
    pub entries: Vec<usize>,
    /// Where the last of them stands.
    pub position: Position,
}

/// Why a node gets no settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unmatched {
    #[error("no entry of the recipe matches")]
    NoEntry,
    #[error("the weight has {elements} elements, fewer than the recipe's minimum of {min}")]
    Small { elements: usize, min: usize },
}

struct Rule {
    patterns: Vec<Pattern>,
    /// Nodes that each pattern matched.
    counts: Vec<usize>,
}

pub(super) enum Pattern {
    Glob(Vec<char>),
    Regex(Regex),
}

/// A glob, or `re:` and a regular expression, for whole names.
pub struct NamePattern(Pattern);

impl NamePattern {
    /// # Errors
    /// What is wrong with a regular expression.
    pub fn new(text: &str) -> Result<NamePattern, String> {
        match pattern(text, Position::default) {
            Ok(it) => Ok(NamePattern(it)),
            Err(it) => Err(it.to_string()),
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl Recipe {
    pub fn selector(&self) -> Result<Selector<'_>, RecipeError> {
        let rule = |entry| {
            let patterns: Vec<Pattern> = compile(entry)?;
            Ok(Rule { counts: vec![0; patterns.len()], patterns })
        };
        let rules = self.quantize.iter().map(rule).collect::<Result<_, RecipeError>>()?;
        Ok(Selector { recipe: self, rules, parts: BTreeSet::new() })
    }

    /// The settings of one node. [`Selector`] is for many.
    pub fn entry_for(&self, node: Candidate) -> Option<Merged> {
        self.selector().ok()?.entry_for(node).ok()
    }
}

impl Selector<'_> {
    /// The settings of a node.
    pub fn entry_for(&mut self, node: Candidate) -> Result<Merged, Unmatched> {
        let Candidate { op, name, elements, .. } = node;
        self.remember(name);
        let mut matched = Vec::new();
        let mut miss = Unmatched::NoEntry;
        for (i, entry) in self.recipe.quantize.iter().enumerate() {
            // Patterns count even where the operator differs: the user has seen the name somewhere.
            let named = entry.names.is_none() || self.rules[i].count(name);
            let after = entry.after_activation_function;
            let placed = after.is_none_or(|it| it == node.after_activation_function)
                && entry.head.is_none_or(|it| it == node.head)
                && entry.attention_value.is_none_or(|it| it == node.attention_value)
                && entry.after_attention.is_none_or(|it| it == node.after_attention)
                && entry.rotated.is_none_or(|it| it == node.rotated)
                && entry.calibrated.is_none_or(|it| it == node.calibrated)
                && entry.batched.is_none_or(|it| it == node.batched)
                && entry.depthwise.is_none_or(|it| it == node.depthwise)
                && entry.min_intensity.is_none_or(|it| node.does_enough(it))
                && entry.max_intensity.is_none_or(|it| node.intensity <= it)
                && !(node.weightless && entry.weight.is_some());
            if !named || !has_op(entry, op) || !placed {
                continue;
            }
            match entry.min_elements {
                Some(min) if elements < min => miss = Unmatched::Small { elements, min },
                _ => matched.push(i),
            }
        }
        let says = |it: &&usize| {
            let entry = &self.recipe.quantize[**it];
            entry.format.is_some() || entry.skip.is_some()
        };
        // What the others say of it is no use without a way to store the weight.
        let small = matches!(miss, Unmatched::Small { .. }) && !matched.iter().any(|it| says(&it));
        if matched.is_empty() || small { Err(miss) } else { Ok(merge(self.recipe, matched)) }
    }

    /// Counts a node that can take no settings, so that a pattern for it is no error.
    pub fn see(&mut self, name: &str) {
        self.remember(name);
        for rule in &mut self.rules {
            rule.count(name);
        }
    }

    /// An error for each pattern that matched nothing, unless its entry is optional.
    pub fn unmatched(&self) -> Vec<RecipeError> {
        let mut errors = Vec::new();
        for (entry, rule) in self.recipe.quantize.iter().zip(&self.rules) {
            let names = entry.names.iter().flatten();
            for (i, pattern) in names.enumerate().filter(|_| !entry.optional) {
                if rule.counts[i] == 0 {
                    let at = entry.place.at(&format!("names.{i}"));
                    let near = self.near(pattern);
                    errors.push(RecipeError::NoMatch { at, pattern: pattern.clone(), near });
                }
            }
        }
        errors
    }

    fn remember(&mut self, name: &str) {
        for part in name.split('/') {
            if !self.parts.contains(part) {
                self.parts.insert(part.to_owned());
            }
        }
    }

    /// The pattern with its misspelt part replaced, if one of the names has a similar part.
    fn near(&self, pattern: &str) -> Option<String> {
        let parts: Vec<&str> = pattern.split('/').collect();
        for (i, part) in parts.iter().enumerate() {
            let word = part.trim_matches('*');
            if word.is_empty() || word.contains(['*', '?']) || self.parts.contains(word) {
                continue;
            }
            let found = suggest(word, self.parts.iter().map(String::as_str))?;
            let mut parts = parts.clone();
            let part = part.replacen(word, found, 1);
            parts[i] = &part;
            return Some(parts.join("/"));
        }
        None
    }
}

impl Rule {
    fn count(&mut self, name: &str) -> bool {
        let mut any = false;
        for (pattern, count) in self.patterns.iter().zip(&mut self.counts) {
            let matches = pattern.matches(name);
            *count += usize::from(matches);
            any |= matches;
        }
        any
    }
}

fn has_op(entry: &Entry, op: &str) -> bool {
    entry.ops.as_ref().is_none_or(|ops| ops.iter().any(|it| it == op))
}

fn merge(recipe: &Recipe, entries: Vec<usize>) -> Merged {
    let matching = || entries.iter().map(|&i| &recipe.quantize[i]);
    let weight = matching().filter_map(|it| it.weight).reduce(WeightSpec::merge);
    let activation = matching().filter_map(|it| it.activation).reduce(ActivationSpec::merge);
    let format = matching().filter_map(|it| it.format.clone()).next_back();
    let reason = matching().filter_map(|it| it.reason.clone()).next_back();
    Merged {
        weight: weight.map(WeightSpec::complete),
        activation: activation.and_then(ActivationSpec::complete),
        format: format.unwrap_or_default(),
        skip: matching().filter_map(|it| it.skip).next_back().unwrap_or(false),
        reason,
        position: matching().next_back().map(|it| it.place.position.clone()).unwrap_or_default(),
        entries,
    }
}

/// The patterns of an entry.
pub(super) fn compile(entry: &Entry) -> Result<Vec<Pattern>, RecipeError> {
    let names = entry.names.iter().flatten().enumerate();
    names.map(|(i, it)| pattern(it, || entry.place.at(&format!("names.{i}")))).collect()
}

fn pattern(text: &str, at: impl Fn() -> Position) -> Result<Pattern, RecipeError> {
    let Some(regex) = text.strip_prefix("re:") else {
        return Ok(Pattern::Glob(text.chars().collect()));
    };
    // The engine matches in linear time and refuses expressions that compile to megabytes.
    Regex::new(&format!("^(?:{regex})$")).map(Pattern::Regex).map_err(|error| {
        let detail = error.to_string();
        let detail = detail.lines().last().unwrap_or_default().trim_start_matches("error: ");
        RecipeError::value(at(), format!("`{text}` is not a regular expression: {detail}"))
    })
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Glob(glob) => glob_matches(glob, name),
            Pattern::Regex(regex) => regex.is_match(name),
        }
    }
}

/// Backtracks to the last `*` only, which is enough and never exponential.
fn glob_matches(glob: &[char], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(it) if *it == '?' || *it == name[n] => {
                g += 1;
                n += 1;
            }
            _ => {
                let Some((star_g, star_n)) = &mut star else { return false };
                *star_n += 1;
                (g, n) = (*star_g + 1, *star_n);
            }
        }
    }
    glob[g..].iter().all(|it| *it == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::yaml;
    use onnxq_ir::diag::{Code, Diagnostic};

    fn recipe(quantize: &str) -> Recipe {
        let text = format!("onnxq: 1\nname: x\nquantize:\n{quantize}");
        let (mut recipe, place) = yaml::parse::<Recipe>(&text, "x.yaml").unwrap();
        for (i, entry) in recipe.quantize.iter_mut().enumerate() {
            entry.place = place.inner["quantize"].inner[&i.to_string()].clone();
        }
        recipe
    }

    fn node<'a>(op: &'a str, name: &'a str, elements: usize) -> Candidate<'a> {
        Candidate {
            op,
            name,
            elements,
            after_activation_function: false,
            head: false,
            attention_value: false,
            after_attention: false,
            rotated: false,
            calibrated: false,
            depthwise: false,
            batched: false,
            intensity: 100,
            chained: &[],
            weightless: false,
        }
    }

    #[test]
    fn globs_match_whole_names() {
        let matches =
            |glob: &str, name: &str| pattern(glob, Position::default).unwrap().matches(name);
        assert!(matches("*/lm_head/*", "/model/lm_head/MatMul"));
        assert!(!matches("lm_head", "/lm_head/MatMul"));
        assert!(matches("layers.?/fc", "layers.7/fc"));
        assert!(!matches("layers.?/fc", "layers.12/fc"));
        assert!(matches("*a*b", "xaab"));
        assert!(matches("*", ""));
        assert!(!matches(&"*a".repeat(50), &("a".repeat(5000) + "b")));
        assert!(matches(r"re:/layers\.[0-3]/.*", "/layers.2/fc"));
        assert!(!matches("re:layers", "/layers.2/fc"));
        assert!(!matches("re:a|b", "ax"));
    }

    #[test]
    fn later_entries_win_field_by_field() {
        let recipe = recipe(
            "  - ops: [MatMul, Gemm]\n    weight: {dtype: int8, range: narrow}\n    format: [dynamic]\n\
             \x20 - names: ['*/head']\n    weight: {dtype: uint4}\n    format: [matmul_nbits]\n\
             \x20 - names: [/keep/head]\n    skip: true\n    reason: it is tiny\n",
        );
        let plain = recipe.entry_for(node("Gemm", "/fc", 10)).unwrap();
        assert_eq!((plain.entries.as_slice(), plain.format[0].as_str()), (&[0][..], "dynamic"));
        let head = recipe.entry_for(node("MatMul", "/head", 10)).unwrap();
        let scheme = head.weight.unwrap().scheme;
        assert_eq!(scheme.range, onnxq_numerics::scheme::Range::Narrow);
        assert_eq!((scheme.bits, head.format.len()), (4, 1));
        assert_eq!(head.position.to_string(), "x.yaml:7:5");
        let kept = recipe.entry_for(node("MatMul", "/keep/head", 10)).unwrap();
        assert_eq!((kept.skip, kept.reason.as_deref()), (true, Some("it is tiny")));
        assert!(recipe.entry_for(node("Gather", "/embed", 10)).is_none());
    }

    #[test]
    fn some_entries_count_where_there_is_data_or_few_columns() {
        let recipe = recipe(
            "  - ops: [MatMul]\n    weight: {dtype: int8}\n\
             \x20 - ops: [MatMul]\n    calibrated: true\n    weight: {solver: gptq}\n\
             \x20 - ops: [MatMul]\n    max_intensity: 5\n    activation: none\n",
        );
        let entries = |calibrated, intensity| {
            let node = Candidate { calibrated, intensity, ..node("MatMul", "/fc", 10) };
            recipe.entry_for(node).unwrap().entries
        };
        assert_eq!(entries(false, 100), [0]);
        assert_eq!(entries(true, 100), [0, 1]);
        assert_eq!(entries(false, 5), [0, 2]);
        assert_eq!(entries(true, 6), [0, 1]);
        // What a recipe does better with data is no reason to ask for some.
        assert!(!recipe.needs_data());
    }

    #[test]
    fn a_node_that_gets_no_settings_says_why() {
        let recipe = recipe("  - ops: [Gather]\n    min_elements: 4096\n");
        let mut selector = recipe.selector().unwrap();
        let small = selector.entry_for(node("Gather", "", 4095)).unwrap_err();
        assert_eq!(
            small.to_string(),
            "the weight has 4095 elements, fewer than the recipe's minimum of 4096"
        );
        assert!(selector.entry_for(node("Gather", "", 4096)).is_ok());
        assert_eq!(selector.entry_for(node("MatMul", "", 1)).unwrap_err(), Unmatched::NoEntry);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error_with_a_guess() {
        let recipe = recipe(
            "  - names: ['*/lm_haed/*', '*/fc']\n    skip: true\n\
             \x20 - names: ['*/absent/*']\n    optional: true\n  - ops: [Conv]\n",
        );
        let mut selector = recipe.selector().unwrap();
        let _ = selector.entry_for(node("MatMul", "/model/lm_head/MatMul", 10));
        selector.see("/model/fc");
        let errors = selector.unmatched();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].code(), Code::E702);
        assert_eq!(errors[0].to_string(), "x.yaml:4:13: pattern `*/lm_haed/*` matches no node");
        let hint = errors[0].hint().unwrap();
        assert!(hint.starts_with("did you mean `*/lm_head/*`?"), "{hint}");
    }

    #[test]
    fn nodes_are_matched_by_what_comes_before() {
        let recipe = recipe("  - after_activation_function: true\n    skip: true\n");
        let after = Candidate { after_activation_function: true, ..node("MatMul", "", 1) };
        assert!(recipe.entry_for(after).is_some());
        assert!(recipe.entry_for(node("MatMul", "", 1)).is_none());
    }

    #[test]
    fn heads_are_matched_by_what_comes_after() {
        let recipe = recipe("  - head: true\n    skip: true\n");
        let head = Candidate { head: true, ..node("MatMul", "", 1) };
        assert!(recipe.entry_for(head).is_some());
        assert!(recipe.entry_for(node("MatMul", "", 1)).is_none());
    }

    #[test]
    fn flags_of_the_command_line_win() {
        let mut recipe = recipe("  - ops: [MatMul]\n    weight: {dtype: int8}\n");
        recipe.exclude("/a/*");
        recipe.include("/a/b");
        assert!(recipe.entry_for(node("MatMul", "/a/c", 1)).unwrap().skip);
        assert!(!recipe.entry_for(node("MatMul", "/a/b", 1)).unwrap().skip);
        let errors = recipe.selector().unwrap().unmatched();
        assert_eq!(errors[0].to_string(), "--exclude /a/*: pattern `/a/*` matches no node");
    }
}
