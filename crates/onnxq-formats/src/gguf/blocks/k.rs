//! K blocks: 256 elements in parts, whose scales are integers below a common one.

use super::{four_bits, half, two_bits};

/// 16 parts: scales and minima of four bits, elements of two.
pub(in crate::gguf) fn q2(block: &[u8], out: &mut [f32]) {
    with_minima::<16>(block, out, q2_steps, q2_integer);
}

/// The scale of a part, and the minimum that it is less.
pub(in crate::gguf) fn q2_steps(block: &[u8], part: usize) -> (f32, f32) {
    let both = block[part];
    let (scale, minimum) = (half(block, 80).to_f32(), half(block, 82).to_f32());
    (scale * f32::from(both & 15), minimum * f32::from(both >> 4))
}

pub(in crate::gguf) fn q2_integer(block: &[u8], i: usize) -> u8 {
    two_bits(&block[16..80], i)
}

/// 16 parts: signed scales of six bits, elements of three, whose high bits are inverted and lie apart.
pub(in crate::gguf) fn q3(block: &[u8], out: &mut [f32]) {
    in_parts(block, out, q3_scale, q3_integer);
}

pub(in crate::gguf) fn q3_scale(block: &[u8], part: usize) -> f32 {
    let scales = &block[96..108];
    let low = scales[part % 8] >> (part / 8 * 4) & 15;
    let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
    half(block, 108).to_f32() * f32::from((low | high << 4) as i8 - 32)
}

pub(in crate::gguf) fn q3_integer(block: &[u8], i: usize) -> i8 {
    let (high, low) = (&block[..32], &block[32..96]);
    let below = (high[i % 32] >> (i / 32) & 1 ^ 1) << 2;
    two_bits(low, i) as i8 - below as i8
}

/// Eight parts with a minimum each, elements of four bits.
pub(in crate::gguf) fn q4(block: &[u8], out: &mut [f32]) {
    with_minima::<32>(block, out, q45_steps, q4_integer);
}

pub(in crate::gguf) fn q4_integer(block: &[u8], i: usize) -> u8 {
    four_bits(&block[16..], i, 32)
}

/// As [`q4`], with a fifth bit of each element.
pub(in crate::gguf) fn q5(block: &[u8], out: &mut [f32]) {
    with_minima::<32>(block, out, q45_steps, q5_integer);
}

pub(in crate::gguf) fn q5_integer(block: &[u8], i: usize) -> u8 {
    let (high, low) = (&block[16..48], &block[48..]);
    four_bits(low, i, 32) | (high[i % 32] >> (i / 32) & 1) << 4
}

/// As [`q2_steps`]: six bits each, of 12 bytes.
pub(in crate::gguf) fn q45_steps(block: &[u8], part: usize) -> (f32, f32) {
    let (scale, minimum) = (half(block, 0).to_f32(), half(block, 2).to_f32());
    let (own, least) = scale_and_minimum(&block[4..16], part);
    (scale * f32::from(own), minimum * f32::from(least))
}

/// 16 parts: scales of eight bits, elements of six.
pub(in crate::gguf) fn q6(block: &[u8], out: &mut [f32]) {
    in_parts(block, out, q6_scale, q6_integer);
}

pub(in crate::gguf) fn q6_scale(block: &[u8], part: usize) -> f32 {
    half(block, 208).to_f32() * f32::from(block[192 + part] as i8)
}

pub(in crate::gguf) fn q6_integer(block: &[u8], i: usize) -> i8 {
    let quantized = four_bits(&block[..128], i, 64) | two_bits(&block[128..192], i) << 4;
    quantized as i8 - 32
}

/// Elements times the scale of their part.
fn in_parts(
    block: &[u8],
    out: &mut [f32],
    scale: fn(&[u8], usize) -> f32,
    integer: fn(&[u8], usize) -> i8,
) {
    for (p, run) in out.chunks_exact_mut(16).enumerate() {
        let scale = scale(block, p);
        for (j, to) in run.iter_mut().enumerate() {
            *to = scale * f32::from(integer(block, p * 16 + j));
        }
    }
}

/// Elements times the scale of their part of `PART`, less its minimum.
fn with_minima<const PART: usize>(
    block: &[u8],
    out: &mut [f32],
    steps: fn(&[u8], usize) -> (f32, f32),
    integer: fn(&[u8], usize) -> u8,
) {
    for (p, run) in out.chunks_exact_mut(PART).enumerate() {
        let (scale, minimum) = steps(block, p);
        for (j, to) in run.iter_mut().enumerate() {
            *to = scale * f32::from(integer(block, p * PART + j)) - minimum;
        }
    }
}

/// Of the first four parts the low six bits of a byte; of the others four bits of the last bytes, and
/// the two bits that those leave.
fn scale_and_minimum(packed: &[u8], part: usize) -> (u8, u8) {
    let i = part % 4;
    let (scale, minimum, rest) = (packed[i], packed[4 + i], packed[8 + i]);
    match part {
        0..4 => (scale & 63, minimum & 63),
        _ => (rest & 15 | scale >> 2 & 48, rest >> 4 | minimum >> 2 & 48),
    }
}
