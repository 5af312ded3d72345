//! Mutations of protobuf by field: lengths around a changed field are made right again.

use fastrand::Rng;

use super::{bytes, number, range, word};

/// Deeper messages are taken for bytes.
const DEPTH: usize = 24;

#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    /// 4 or 8 bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let Some(mut fields) = parse(input, DEPTH).filter(|it| !it.is_empty()) else {
        bytes::mutate(input, other, words, rng);
        return;
    };
    let donor = parse(other, DEPTH).unwrap_or_default();
    descend(&mut fields, &donor, words, rng);
    input.clear();
    write(&fields, input);
}

/// Goes down at random, and changes something of one message.
fn descend(fields: &mut Vec<Field>, donor: &[Field], words: &[&str], rng: &mut Rng) {
    let inner: Vec<usize> = (0..fields.len())
        .filter(|it| matches!(&fields[*it].value, Value::Message(it) if !it.is_empty()))
        .collect();
    if !inner.is_empty() && rng.u8(..4) != 0 {
        let field = &mut fields[inner[rng.usize(..inner.len())]];
        let same = donor.iter().filter(|it| it.number == field.number);
        let same: Vec<&[Field]> = same.filter_map(message).collect();
        let donor = if same.is_empty() { &[][..] } else { same[rng.usize(..same.len())] };
        if let Value::Message(list) = &mut field.value {
            descend(list, donor, words, rng);
        }
        return;
    }
    change(fields, donor, words, rng);
}

fn message(field: &Field) -> Option<&[Field]> {
    match &field.value {
        Value::Message(it) => Some(it),
        _ => None,
    }
}

fn change(fields: &mut Vec<Field>, donor: &[Field], words: &[&str], rng: &mut Rng) {
    if fields.is_empty() {
        fields.push(Field { number: rng.u64(1..32), value: Value::Varint(number(rng)) });
        return;
    }
    let (at, second) = (rng.usize(..fields.len()), rng.usize(..fields.len()));
    match rng.u8(..12) {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = fields[second].clone();
            fields.insert(at, copy);
        }
        2 => fields.swap(at, second),
        3 => fields[at].number = rng.u64(1..32),
        4 => {
            let value = match rng.u8(..3) {
                0 => Value::Varint(number(rng)),
                1 => Value::Bytes(word(words, rng).into()),
                _ => Value::Fixed(vec![rng.u8(..); 4]),
            };
            fields.insert(at, Field { number: rng.u64(1..32), value });
        }
        5 | 6 if !donor.is_empty() => {
            fields.insert(at, donor[rng.usize(..donor.len())].clone());
        }
        // The same value in the place of another of its kind: names meet names.
        7 => {
            let copy = fields[second].value.clone();
            fields[at].value = copy;
        }
        _ => value(&mut fields[at].value, words, rng),
    }
}

fn value(value: &mut Value, words: &[&str], rng: &mut Rng) {
    match value {
        Value::Varint(it) => {
            *it = match rng.u8(..4) {
                0 => it.wrapping_add(1),
                1 => it.wrapping_sub(1),
                _ => number(rng),
            };
        }
        Value::Fixed(it) => {
            let bytes = number(rng).to_le_bytes();
            let len = it.len();
            it.copy_from_slice(&bytes[..len]);
        }
        Value::Message(fields) if rng.bool() => {
            let mut flat = Vec::new();
            write(fields, &mut flat);
            *value = Value::Bytes(flat);
        }
        Value::Message(fields) => {
            let count = fields.len();
            if let Some(part) = range(count, rng) {
                let copy = fields[part].to_vec();
                fields.extend(copy);
            }
        }
        Value::Bytes(it) => match rng.u8(..4) {
            0 => *it = word(words, rng).into(),
            1 => it.clear(),
            _ => {
                let own = it.clone();
                bytes::mutate(it, &own, words, rng);
            }
        },
    }
}

/// `None` if the bytes are no message.
fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed(take(&mut bytes, 8)?.to_vec()),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                contents(take(&mut bytes, len)?, depth)
            }
            5 => Value::Fixed(take(&mut bytes, 4)?.to_vec()),
            _ => return None,
        };
        let number = key >> 3;
        // ONNX numbers its fields low: others are a sign of text that happens to parse.
        if number == 0 || number > 64 {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn contents(bytes: &[u8], depth: usize) -> Value {
    match parse(bytes, depth.saturating_sub(1)).filter(|it| depth > 0 && !it.is_empty()) {
        Some(fields) => Value::Message(fields),
        None => Value::Bytes(bytes.to_vec()),
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let wire = match value {
            Value::Varint(_) => 0,
            Value::Fixed(it) if it.len() == 8 => 1,
            Value::Fixed(_) => 5,
            Value::Bytes(_) | Value::Message(_) => 2,
        };
        write_varint(number << 3 | wire, out);
        match value {
            Value::Varint(it) => write_varint(*it, out),
            Value::Fixed(it) => out.extend(it),
            Value::Bytes(it) => with_len(it, out),
            Value::Message(fields) => {
                let mut inner = Vec::new();
                write(fields, &mut inner);
                with_len(&inner, out);
            }
        }
    }
}

fn with_len(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_written_alike() {
        let bytes = b"\x08\x96\x01\x12\x04\x08\x01\x10\x02\x1d\0\0\x80\x3f\x22\x02hi";
        let mut out = Vec::new();
        write(&parse(bytes, DEPTH).unwrap(), &mut out);
        assert_eq!(out, bytes);
    }
}
