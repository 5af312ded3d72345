//! Blocks of -1, 0 and 1.

use super::{half, two_bits};

/// Five elements in a byte, as digits of base 3 of a fraction: multiplied by a power of 3 without the
/// carry, its top digit is the element.
pub(in crate::gguf) fn tq1_0(block: &[u8], out: &mut [f32]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let scale = half(block, 52).to_f32();
    let mut at = 0;
    // The last bytes have four elements each.
    for (bytes, powers) in [(&block[..32], 5), (&block[32..48], 5), (&block[48..52], 4)] {
        for power in &POWERS[..powers] {
            for byte in bytes {
                let digit = ((u16::from(byte.wrapping_mul(*power)) * 3) >> 8) as i8;
                out[at] = scale * f32::from(digit - 1);
                at += 1;
            }
        }
    }
}

/// Two bits of each element.
pub(in crate::gguf) fn tq2_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 64).to_f32();
    for (i, to) in out.iter_mut().enumerate() {
        *to = scale * f32::from(two_bits(&block[..64], i) as i8 - 1);
    }
}
