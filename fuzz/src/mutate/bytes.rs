//! Mutations of plain bytes.

use fastrand::Rng;

use super::{number, range, word};

pub(super) fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], rng: &mut Rng) {
    let at = rng.usize(..=input.len());
    let part = range(input.len(), rng);
    match (rng.u8(..8), part) {
        (0, Some(part)) => input[part.start] ^= 1 << rng.u32(..8),
        (1, Some(part)) => input[part.start] = rng.u8(..),
        (2, Some(part)) => drop(input.drain(part)),
        (3, Some(part)) => {
            let copy = input[part].to_vec();
            input.splice(at..at, copy);
        }
        (4, Some(part)) => {
            let bytes = number(rng).to_le_bytes();
            let width = (1usize << rng.u32(..4)).min(input.len() - part.start);
            input[part.start..part.start + width].copy_from_slice(&bytes[..width]);
        }
        (5, Some(_)) => input.truncate(at),
        (6, _) => {
            if let Some(part) = range(other.len(), rng) {
                input.splice(at..at, other[part].iter().copied());
            }
        }
        _ => drop(input.splice(at..at, word(words, rng).bytes())),
    }
}
