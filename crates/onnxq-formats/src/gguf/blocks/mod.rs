//! Blocks of quantized elements, as ggml lays them out.
//!
//! Each product and sum is a float32 of its own, in the order in which the package `gguf` has them:
//! values are the same bit for bit.

pub(super) mod iq;
pub(super) mod k;
pub(super) mod legacy;
mod pack;
mod round;
pub(super) mod ternary;

use half::f16;

pub use self::legacy::{Legacy, LegacyFormat};

/// A scale: float16, as all blocks have it.
fn half(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The two bits of element `i` of 256: a row of 32 bytes has the lowest bits of its first 32
/// elements, then the next ones.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

/// The four bits of element `i`: `run` bytes have the low halves of so many elements, then the high
/// ones of the next.
fn four_bits(bytes: &[u8], i: usize, run: usize) -> u8 {
    bytes[i / (2 * run) * run + i % run] >> (i / run % 2 * 4) & 15
}
