//! Mutations: of plain bytes, and of what a reader's grammar is made of.

mod array;
mod bytes;
mod gguf;
mod json;
mod proto;
mod text;

use fastrand::Rng;

/// What inputs of a target are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grammar {
    /// npy, and zip archives of them.
    Array,
    Gguf,
    Json,
    Protobuf,
    Text,
}

/// Changes one thing of `input`. `other` is another input of the corpus, `words` are the target's.
pub fn mutate(grammar: Grammar, input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let structured = rng.u8(..8) != 0;
    match grammar {
        Grammar::Array if structured => array::mutate(input, other, words, rng),
        Grammar::Gguf if structured => gguf::mutate(input, other, words, rng),
        Grammar::Json if structured => json::mutate(input, other, words, rng),
        Grammar::Protobuf if structured => proto::mutate(input, other, words, rng),
        Grammar::Text if structured => text::mutate(input, other, words, rng),
        _ => bytes::mutate(input, other, words, rng),
    }
}

/// Numbers at which things change.
fn number(rng: &mut Rng) -> u64 {
    const EDGES: [u64; 20] = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        16,
        31,
        32,
        63,
        64,
        127,
        128,
        255,
        256,
        65535,
        65536,
        0x7fff_ffff,
        0xffff_ffff,
    ];
    match rng.u8(..6) {
        0 => 1 << rng.u32(..64),
        1 => (1u64 << rng.u32(..64)).wrapping_sub(1),
        2 => EDGES[rng.usize(..EDGES.len())].wrapping_neg(),
        3 => rng.u64(..),
        _ => EDGES[rng.usize(..EDGES.len())],
    }
}

fn word<'a>(words: &[&'a str], rng: &mut Rng) -> &'a str {
    words[rng.usize(..words.len())]
}

/// A range that is not empty, most often a short one; `None` of nothing.
fn range(len: usize, rng: &mut Rng) -> Option<std::ops::Range<usize>> {
    let start = (len > 0).then(|| rng.usize(..len))?;
    let most = (len - start).min(1 << rng.u32(..10));
    Some(start..start + rng.usize(1..=most))
}
