//! How to do what is suggested: flags of `onnxq quantize`, ready to copy.

use super::cut::Region;
use onnxq_ir::Model;
use onnxq_quant::{
    ops,
    recipe::{Recipe, load_text},
};
use onnxq_report::document::{Attribution, Suggestion};

/// What suggestions call a node that is to take no fewer bits than these.
pub(super) const EIGHT: &str = "8 bits";
/// What suggestions call a node whose activation is to have a range for each row.
pub(super) const ROWS: &str = "a range per row";
/// How a recipe says that of weights.
const WEIGHT: &str = "{dtype: uint8, symmetric: true}";

/// Patterns for the nodes of a region that a recipe can quantize.
pub(super) fn quantizable(of: &Model, region: &Region) -> Vec<String> {
    let sites = region.nodes.iter().filter(|it| matches!(ops::site(of, **it), Some(Ok(_))));
    sites.map(|it| pattern(&of.node_label(*it))).collect()
}

/// A pattern that matches this name only.
pub(super) fn pattern(name: &str) -> String {
    let is_plain = !name.contains(['*', '?']) && !name.starts_with("re:");
    if is_plain { name.to_owned() } else { format!("re:{}", escaped(name)) }
}

/// As a regular expression takes it for itself.
fn escaped(name: &str) -> String {
    const MEANT: &str = r"\.+*?()|[]{}^$#&-~";
    let mut out = String::new();
    for it in name.chars() {
        out.extend(MEANT.contains(it).then_some('\\'));
        out.push(it);
    }
    out
}

/// Gives each suggestion its flags. `recipe` is the text of the one that made the candidate.
pub(super) fn name_flags(found: &mut Attribution, recipe: Option<&str>) {
    let recipe = recipe.and_then(|it| load_text(it, "recipe").ok());
    let entry = recipe.as_ref().map(next_entry);
    let list = &mut found.suggestions;
    list.iter_mut().for_each(|it| it.flag = flag(std::slice::from_ref(it), entry));
    let all = one_each(list);
    found.flags = flag(&all, entry).filter(|_| all.len() > 1);
}

/// One suggestion for each node: who gives it a range for each row need not keep it in float.
fn one_each(list: &[Suggestion]) -> Vec<Suggestion> {
    let by_row = |it: &Suggestion| {
        it.keep_in != ROWS && list.iter().any(|row| row.keep_in == ROWS && row.node == it.node)
    };
    list.iter().filter(|it| !by_row(it)).cloned().collect()
}

/// Where `--set` appends: entries of `--exclude` and `--include` come after those that it sets.
fn next_entry(recipe: &Recipe) -> usize {
    let reason = |at: usize| recipe.quantize[at].reason.as_deref();
    let is_flag = |at: usize| matches!(reason(at), Some("--exclude" | "--include"));
    let all = recipe.quantize.len();
    (0..all).rev().find(|it| !is_flag(*it)).map_or(0, |it| it + 1)
}

/// One entry for all nodes that get the same: a second `--set` of an entry would replace it.
fn flag(list: &[Suggestion], entry: Option<usize>) -> Option<String> {
    let entries =
        [(EIGHT, format!("weight: {WEIGHT}")), (ROWS, "activation: {granularity: row}".into())];
    let named = |what: &str| {
        let those = list.iter().filter(|it| it.keep_in == what);
        those.flat_map(|it| &it.names).collect::<Vec<&String>>()
    };
    let mut flags = Vec::new();
    for (what, value) in &entries {
        let names = named(what);
        let Some(entry) = entry.filter(|_| !names.is_empty()) else { continue };
        // YAML reads JSON.
        let names: Vec<String> = names.iter().map(|it| serde_json::json!(it).to_string()).collect();
        let value = format!("{{names: [{}], {value}}}", names.join(", "));
        let entry = entry + flags.len();
        flags.push(format!("--set {}", quoted(&format!("quantize.{entry}={value}"))));
    }
    let in_float = |it: &&Suggestion| entries.iter().all(|entry| entry.0 != it.keep_in);
    let excluded = list.iter().filter(in_float).flat_map(|it| &it.names);
    flags.extend(excluded.map(|it| format!("--exclude {}", quoted(it))));
    (!flags.is_empty()).then(|| flags.join(" "))
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_quant::recipe::{apply_set, load, to_yaml};

    fn flagged(keep_in: &str, names: &[&str], recipe: Option<&str>) -> Option<String> {
        let names = names.iter().map(|it| pattern(it)).collect();
        let one = Suggestion { keep_in: keep_in.into(), names, ..Suggestion::default() };
        let mut found = Attribution { suggestions: vec![one], ..Attribution::default() };
        name_flags(&mut found, recipe);
        found.suggestions.remove(0).flag
    }

    #[test]
    fn flags_are_taken_by_the_recipe_that_they_are_for() {
        let mut recipe = load("int4").unwrap();
        let count = recipe.quantize.len();
        // The flag is added to a command that has this one, too.
        recipe.exclude("*/other");
        let text = to_yaml(&recipe);
        let flag = flagged(EIGHT, &["/lm_head/Mat\"Mul"], Some(&text)).unwrap();
        let value = flag.strip_prefix("--set '").and_then(|it| it.strip_suffix('\'')).unwrap();
        assert!(value.starts_with(&format!("quantize.{count}=")), "{value}");
        let changed = apply_set(&load("int4").unwrap(), value).unwrap();
        let names = changed.quantize[count].names.as_deref();
        assert_eq!(names, Some(&["/lm_head/Mat\"Mul".to_owned()][..]));
        // Without the recipe nobody knows where its entries end.
        assert_eq!(flagged(EIGHT, &["/lm_head/MatMul"], None), None);
    }

    #[test]
    fn all_of_them_take_an_entry_for_each_change_and_none_twice() {
        let one = |keep_in: &str, node: &str| Suggestion {
            keep_in: keep_in.into(),
            node: node.into(),
            names: vec![node.into()],
            ..Suggestion::default()
        };
        let suggestions =
            vec![one(ROWS, "a"), one("float", "a"), one(EIGHT, "b"), one("float", "c")];
        let mut found = Attribution { suggestions, ..Attribution::default() };
        let recipe = load("avx512_vnni").unwrap();
        name_flags(&mut found, Some(&to_yaml(&recipe)));
        let count = recipe.quantize.len();
        let eight = format!("--set 'quantize.{count}={{names: [\"b\"], weight: {WEIGHT}}}'");
        let rows = format!(
            "--set 'quantize.{}={{names: [\"a\"], activation: {{granularity: row}}}}'",
            count + 1
        );
        assert_eq!(found.flags, Some(format!("{eight} {rows} --exclude 'c'")));
        let alone =
            format!("quantize.{count}={{names: [\"a\"], activation: {{granularity: row}}}}");
        assert_eq!(found.suggestions[0].flag, Some(format!("--set '{alone}'")));
        assert!(apply_set(&recipe, &alone).is_ok());
    }

    #[test]
    fn names_are_quoted_and_match_themselves_only() {
        let flag = flagged("float", &["a*b", "it's"], None).unwrap();
        assert_eq!(flag, r"--exclude 're:a\*b' --exclude 'it'\''s'");
        assert_eq!(flagged("float", &[], None), None);
    }
}
