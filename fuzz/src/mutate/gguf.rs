//! Mutations of the values and tensors of GGUF files; lengths and offsets are made right again.

use std::io::Write;

use ::bytes::Bytes;
use fastrand::Rng;
use onnxq_formats::gguf::{Array, File, GgmlType, Value, Writer};

use super::{bytes, number, word};

/// Bytes that a changed tensor gets at most.
const MOST: usize = 1 << 16;

#[derive(Clone)]
struct Stored {
    name: String,
    kind: GgmlType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Parts {
    values: Vec<(String, Value)>,
    tensors: Vec<Stored>,
}

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let changed = parts(input).filter(|_| rng.bool()).and_then(|mut it| {
        match rng.bool() {
            true => value(&mut it.values, parts(other), words, rng),
            false => tensor(&mut it.tensors, parts(other), words, rng),
        }
        written(&it)
    });
    match changed {
        Some(it) => *input = it,
        None => header(input, other, words, rng),
    }
}

/// Most of what is decided is decided by the first bytes.
fn header(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let rest = if rng.bool() { input.split_off(input.len().min(256)) } else { Vec::new() };
    bytes::mutate(input, other, words, rng);
    input.extend(rest);
}

fn value(list: &mut Vec<(String, Value)>, other: Option<Parts>, words: &[&str], rng: &mut Rng) {
    let at = rng.usize(..=list.len());
    let from = other.and_then(|it| rng.choice(it.values));
    match (rng.u8(..4), from) {
        (0, _) if at < list.len() => drop(list.remove(at)),
        (1, Some(from)) => list.insert(at, from),
        (2, _) if at < list.len() => list[at].1 = any_value(words, rng),
        _ => list.insert(at, (word(words, rng).to_owned(), any_value(words, rng))),
    }
}

fn any_value(words: &[&str], rng: &mut Rng) -> Value {
    let (bits, count) = (number(rng), rng.usize(..5));
    match rng.u8(..8) {
        0 => (bits as u8).into(),
        1 => (bits as i32).into(),
        2 => (bits as u32).into(),
        3 => bits.into(),
        4 => f32::from_bits(bits as u32).into(),
        5 => word(words, rng).into(),
        6 => Array::of_texts((0..count).map(|_| word(words, rng))).into(),
        _ => (0..count).map(|_| bits as i16).collect::<Array>().into(),
    }
}

fn tensor(list: &mut Vec<Stored>, other: Option<Parts>, words: &[&str], rng: &mut Rng) {
    let at = rng.usize(..=list.len());
    let from = other.and_then(|it| rng.choice(it.tensors));
    let changes = rng.u8(..5);
    match (changes, from) {
        (0, Some(from)) => return list.insert(at, from),
        _ if at == list.len() => return,
        (1, _) => return drop(list.remove(at)),
        (2, _) => list[at].name = word(words, rng).to_owned(),
        (3, _) => bytes::mutate(&mut list[at].bytes, &[], words, rng),
        _ => {
            let kind = GgmlType::ALL[rng.usize(..GgmlType::ALL.len())];
            let dims = rng.usize(..4);
            list[at].kind = kind;
            list[at].shape = (0..dims).map(|_| rng.usize(1..4)).collect();
            list[at].shape.push(kind.elements() * rng.usize(1..4));
        }
    }
    let it = &mut list[at];
    let rows: usize = it.shape.iter().rev().skip(1).product();
    let columns = it.shape.last().copied().unwrap_or(1);
    let size = it.kind.row_bytes(columns).and_then(|row| row.checked_mul(rows));
    if let Some(size) = size.filter(|size| *size <= MOST) {
        it.bytes.resize(size, 0x3c);
    }
}

fn parts(bytes: &[u8]) -> Option<Parts> {
    let file = File::parse(&Bytes::copy_from_slice(bytes), "").ok()?;
    let values = file.metadata().map(|(key, it)| (key.to_owned(), it.clone())).collect();
    let tensors = file.tensors().map(|(name, it)| Stored {
        name: name.to_owned(),
        kind: it.kind,
        shape: it.shape.clone(),
        bytes: it.bytes.to_vec(),
    });
    Some(Parts { values, tensors: tensors.collect() })
}

fn written(parts: &Parts) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    parts.values.iter().for_each(|(key, it)| writer.value(key, it.clone()));
    for it in &parts.tensors {
        let source = |to: &mut dyn Write| Ok(to.write_all(&it.bytes)?);
        writer.tensor(&it.name, it.kind, &it.shape, source).ok()?;
    }
    let mut out = Vec::new();
    writer.write(&mut out).ok()?;
    Some(out)
}
