//! Mutations of text by token: words, numbers, strings, marks, blanks and lines.

use std::ops::Range;

use fastrand::Rng;

use super::{number, word};

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let own = tokens(input);
    if own.is_empty() {
        input.extend(word(words, rng).bytes());
        return;
    }
    let pick = |rng: &mut Rng, list: &[Range<usize>]| list[rng.usize(..list.len())].clone();
    let (token, second) = (pick(rng, &own), pick(rng, &own));
    match rng.u8(..12) {
        0 => drop(input.drain(token)),
        1 => replace(input, token.end..token.end, word(words, rng).as_bytes()),
        2 | 3 => replace(input, token, word(words, rng).as_bytes()),
        4 | 5 => {
            let numbers: Vec<_> =
                own.iter().filter(|it| input[it.start].is_ascii_digit()).cloned().collect();
            if let Some(at) = (!numbers.is_empty()).then(|| pick(rng, &numbers)) {
                let text = number_text(rng);
                replace(input, at, text.as_bytes());
            }
        }
        6 | 7 => {
            let copy = input[second].to_vec();
            replace(input, token, &copy);
        }
        8 => {
            let theirs = tokens(other);
            if !theirs.is_empty() {
                let from = pick(rng, &theirs);
                replace(input, token, &other[from]);
            }
        }
        9 => {
            // A run of tokens from here or there, in the place of one.
            let (from, list) =
                if rng.bool() { (input.clone(), own) } else { (other.to_vec(), tokens(other)) };
            if list.is_empty() {
                return;
            }
            let start = rng.usize(..list.len());
            let end = (start + rng.usize(1..24)).min(list.len());
            replace(input, token, &from[list[start].start..list[end - 1].end]);
        }
        10 => lines(input, other, rng),
        _ => {
            let (start, end) = (token.start.min(second.start), token.end.max(second.end));
            if end - start < 200 || rng.u8(..4) == 0 {
                let copy = input[start..end].to_vec();
                let times = 1 << rng.u32(..6);
                let copies = copy.repeat(if copy.len() * times < 4096 { times } else { 1 });
                replace(input, end..end, &copies);
            } else {
                drop(input.drain(start..end));
            }
        }
    }
}

fn replace(input: &mut Vec<u8>, at: Range<usize>, text: &[u8]) {
    input.splice(at, text.iter().copied());
}

fn number_text(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => format!("{}", number(rng) as i64),
        1 => format!("{}", number(rng)),
        2 => format!("{:e}", f64::from_bits(rng.u64(..))),
        3 => format!("{}.5", number(rng) >> 32),
        4 => format!("-{}", number(rng) & 0xff),
        _ => format!("{}", rng.u8(..16)),
    }
}

/// Deletes, doubles or takes over a line, or swaps two.
fn lines(input: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let mut lines: Vec<Vec<u8>> =
        input.split_inclusive(|it| *it == b'\n').map(<[u8]>::to_vec).collect();
    let theirs: Vec<&[u8]> = other.split_inclusive(|it| *it == b'\n').collect();
    let (a, b) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
    match rng.u8(..4) {
        0 => drop(lines.remove(a)),
        1 => lines.swap(a, b),
        2 if !theirs.is_empty() => lines.insert(a, theirs[rng.usize(..theirs.len())].to_vec()),
        _ => {
            let copy = lines[b].clone();
            lines.insert(a, copy);
        }
    }
    *input = lines.concat();
}

/// Words and numbers, quoted strings, runs of blanks, and single marks.
fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let run = |belongs: fn(u8) -> bool| {
            rest.iter().position(|it| !belongs(*it)).unwrap_or(rest.len())
        };
        let len = match rest[0] {
            b'"' => string_len(rest),
            it if is_word(it) => run(is_word),
            it if it.is_ascii_whitespace() => run(|it| it.is_ascii_whitespace()),
            _ => 1,
        };
        tokens.push(at..at + len);
        at += len;
    }
    tokens
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') || byte >= 0x80
}

/// With its quotes; a string that does not end is a mark.
fn string_len(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, it) in text.iter().enumerate().skip(1) {
        match *it {
            b'"' if !escaped => return at + 1,
            b'\n' => break,
            it => escaped = it == b'\\' && !escaped,
        }
    }
    1
}
