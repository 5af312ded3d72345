//! What is known of operators stands in one table: what other rooms list by name is counted.

use std::collections::BTreeSet;

use onnxq_ir::{Op, ops};
use onnxq_rewrite::RULES;
use regex::Regex;

use crate::tidy;

/// Tables of at least this many operators count.
const NAMES: usize = 3;
/// Function tables (of inference, evaluation, gradients) and policies may stay; both numbers may only fall.
const MOST_TABLES: usize = 12;
const MOST_FILES: usize = 9;

#[test]
fn operators_are_listed_in_few_places() {
    let mut found = Vec::new();
    for path in ["src", "crates"].into_iter().flat_map(tidy::rust_files) {
        let is_test = path.ends_with("laws.rs") || path.ends_with("tests.rs");
        let is_production = path.iter().any(|it| it == "src") && !is_test;
        if !is_production || path.starts_with("crates/onnxq-ir/src/ops") {
            continue;
        }
        let text = without_comments(&tidy::production(&path));
        found.extend(tables(&text).into_iter().map(|it| format!("{}: {it}", path.display())));
    }
    let files: BTreeSet<&str> = found.iter().filter_map(|it| it.split(':').next()).collect();
    let list = found.join("\n");
    assert!(found.len() <= MOST_TABLES, "{} tables of operators:\n{list}", found.len());
    assert!(files.len() <= MOST_FILES, "tables of operators in {} files:\n{list}", files.len());
}

#[test]
fn tables_are_told_from_other_code() {
    let text = r#"
        const A: &[&str] = &["Add", "Mul", "com.microsoft.Gelu"];
        const B: &[&str] = &["Add", "Mul"];
        const C: [&str; 3] = ["Add", "no operator", "Words"];
        fn f() { matches!(op, "Add" | "Sub" | "Div"); g(["Relu", "Tanh", "Elu"]) }
        fn g() { match op { "Add" => 1, "Sub" => 2, "Div" => 3 } }
    "#;
    assert_eq!(tables(text), ["A: 3 names", "a list: 3 names", "a list: 3 names"]);
}

#[test]
fn roots_of_rules_have_a_row() {
    for rule in RULES {
        assert!(Op::new(rule.root).info().is_some(), "{}: {}", rule.name, rule.root);
    }
}

/// The tables of a file, as text for people.
fn tables(text: &str) -> Vec<String> {
    let constant = Regex::new(r"\b(?:const|static) (\w+): &?(?:'static )?\[[^=]*=").unwrap();
    let name = Regex::new(r#""((?:com\.microsoft\.)?[A-Z]\w+)""#).unwrap();
    let list = Regex::new(r#""[\w.]+"(?:\s*[|,]\s*"[\w. +]+"){2,}"#).unwrap();
    let count = |text: &str| {
        let names = name.captures_iter(text).map(|it| it.extract::<1>().1[0]);
        names.filter(|it| is_operator(it)).count()
    };
    let (mut found, mut rest) = (Vec::new(), text.to_owned());
    while let Some(it) = constant.captures(&rest) {
        let (all, label) = (it.get(0).unwrap(), it[1].to_owned());
        let end = all.end() + end_of_statement(&rest[all.end()..]);
        let names = count(&rest[all.end()..end]);
        found.extend((names >= NAMES).then(|| format!("{label}: {names} names")));
        rest.replace_range(all.start()..end, "");
    }
    for it in list.find_iter(&rest) {
        let names = count(it.as_str());
        found.extend((names >= NAMES).then(|| format!("a list: {names} names")));
    }
    found
}

/// Where the `;` of a constant is that stands in no bracket.
fn end_of_statement(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn is_operator(printed: &str) -> bool {
    let name = printed.rsplit('.').next().unwrap_or(printed);
    printed.contains('.') || ops::named(name).is_some()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|it| !it.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}
