//! Mutations of JSON by value: what comes out is JSON again.

use fastrand::Rng;
use serde_json::{Map, Value};

use super::{number, text, word};

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let Ok(mut value) = serde_json::from_slice(input) else {
        text::mutate(input, other, words, rng);
        return;
    };
    let donor: Value = serde_json::from_slice(other).unwrap_or_default();
    descend(&mut value, &donor, words, rng);
    *input = value.to_string().into_bytes();
}

/// Goes down at random, in both alike while they are alike, and changes one value.
fn descend(value: &mut Value, donor: &Value, words: &[&str], rng: &mut Rng) {
    let stop = rng.u8(..6) == 0;
    match value {
        Value::Object(fields) if !fields.is_empty() && !stop => {
            let at = rng.usize(..fields.len());
            let (key, inner) = fields.iter_mut().nth(at).expect("it is one of them");
            let donor = donor.get(key).unwrap_or(donor).clone();
            descend(inner, &donor, words, rng);
        }
        Value::Array(items) if !items.is_empty() && !stop => {
            let at = rng.usize(..items.len());
            let donor = donor.get(at).or(donor.get(0)).unwrap_or(donor).clone();
            descend(&mut items[at], &donor, words, rng);
        }
        _ => change(value, donor, words, rng),
    }
}

fn change(value: &mut Value, donor: &Value, words: &[&str], rng: &mut Rng) {
    match (rng.u8(..5), &mut *value) {
        (0, _) => *value = donor.clone(),
        (1, _) => *value = any(words, rng),
        (_, Value::Object(fields)) => field(fields, words, rng),
        (_, Value::Array(items)) => item(items, words, rng),
        (_, Value::String(it)) => string(it, words, rng),
        (_, Value::Number(_)) => *value = numeric(rng),
        (_, Value::Bool(it)) => *it = !*it,
        (_, Value::Null) => *value = any(words, rng),
    }
}

fn field(fields: &mut Map<String, Value>, words: &[&str], rng: &mut Rng) {
    let keys: Vec<String> = fields.keys().cloned().collect();
    let Some(key) = (!keys.is_empty()).then(|| keys[rng.usize(..keys.len())].clone()) else {
        fields.insert(word(words, rng).to_owned(), any(words, rng));
        return;
    };
    match rng.u8(..3) {
        0 => drop(fields.remove(&key)),
        // The same under another name: maps of models have names as keys.
        1 => {
            let value = fields[&key].clone();
            fields.insert(word(words, rng).to_owned(), value);
        }
        _ => {
            let value = fields[&keys[rng.usize(..keys.len())]].clone();
            fields.insert(key, value);
        }
    }
}

fn item(items: &mut Vec<Value>, words: &[&str], rng: &mut Rng) {
    if items.is_empty() {
        items.push(any(words, rng));
        return;
    }
    let (at, second) = (rng.usize(..items.len()), rng.usize(..items.len()));
    match rng.u8(..4) {
        0 => drop(items.remove(at)),
        1 => items.swap(at, second),
        2 => items.extend(vec![items[at].clone(); rng.usize(1..40)]),
        _ => items.clear(),
    }
}

fn string(text: &mut String, words: &[&str], rng: &mut Rng) {
    match rng.u8(..4) {
        0 => text.clear(),
        1 => *text = text.repeat(rng.usize(2..6)),
        2 => *text = unescaped(word(words, rng)),
        _ => text.push_str(&unescaped(word(words, rng))),
    }
}

/// Words are as JSON spells them.
fn unescaped(word: &str) -> String {
    serde_json::from_str(&format!("\"{word}\"")).unwrap_or_else(|_| word.to_owned())
}

fn any(words: &[&str], rng: &mut Rng) -> Value {
    match rng.u8(..5) {
        0 => Value::Null,
        1 => Value::Bool(rng.bool()),
        2 => Value::Array(vec![numeric(rng); rng.usize(..4)]),
        3 => Value::String(unescaped(word(words, rng))),
        _ => numeric(rng),
    }
}

fn numeric(rng: &mut Rng) -> Value {
    match rng.u8(..5) {
        0 => Value::from(number(rng)),
        1 => Value::from(number(rng) as i64),
        2 => Value::from(f64::from_bits(rng.u64(..))),
        3 => Value::from(rng.f64()),
        _ => Value::from(rng.u8(..20)),
    }
}
