//! Blocks whose four bits choose one of 16 values.

use super::{four_bits, half};

/// Values nearer to each other where there are more weights.
const UNEVEN: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Floats of four bits (E2M1), doubled: <https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

pub(in crate::gguf) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    chosen(half(block, 0).to_f32(), &block[2..], UNEVEN, out);
}

/// Eight parts of 32, whose scales have six bits: four of each in bytes, two in a number of 16 bits.
pub(in crate::gguf) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let (high, low, quantized) =
        (u16::from_le_bytes([block[2], block[3]]), &block[4..8], &block[8..]);
    let scale = half(block, 0).to_f32();
    for (p, run) in out.chunks_exact_mut(32).enumerate() {
        let low = low[p / 2] >> (p % 2 * 4) & 15;
        let high = (high >> (2 * p) & 3) as u8;
        let scale = scale * f32::from((low | high << 4) as i8 - 32);
        chosen(scale, &quantized[p * 16..][..16], UNEVEN, run);
    }
}

/// A scale that is a power of two, and floats of four bits.
pub(in crate::gguf) fn mxfp4(block: &[u8], out: &mut [f32]) {
    // Half of the power, as the values are doubled.
    let bits = match block[0] {
        it @ 0..2 => 0x0020_0000 << it,
        it => u32::from(it - 1) << 23,
    };
    chosen(f32::from_bits(bits), &block[1..], E2M1, out);
}

fn chosen(scale: f32, quantized: &[u8], values: [i8; 16], out: &mut [f32]) {
    for (i, to) in out.iter_mut().enumerate() {
        *to = scale * f32::from(values[usize::from(four_bits(quantized, i, 16))]);
    }
}
