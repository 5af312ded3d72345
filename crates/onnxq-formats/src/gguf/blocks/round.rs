//! Rounding to the nearest integer of a block, with the scale that its largest element gives: what
//! the quantizers of the package `gguf` do, bit for bit.
//!
//! The integer is that of the scale before it is rounded to float16.

use half::f16;

use super::legacy::{BLOCK, Legacy, LegacyFormat};

impl LegacyFormat {
    /// Integers, scales and minima of rows of finite values.
    ///
    /// # Panics
    /// If the rows have no whole blocks.
    pub fn round(self, values: &[f32]) -> Legacy {
        assert!(values.len().is_multiple_of(BLOCK), "rows have whole blocks");
        let mut out = Legacy::default();
        for block in values.chunks_exact(BLOCK) {
            match (self.has_min, self.bits) {
                (true, _) => self.between_ends(block, &mut out),
                (false, 8) => symmetric(block, &mut out),
                (false, _) => self.below_the_farthest(block, &mut out),
            }
        }
        out
    }

    /// The smallest and the largest element are exact.
    fn between_ends(self, block: &[f32], out: &mut Legacy) {
        let max = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = block.iter().copied().fold(f32::INFINITY, f32::min);
        let scale = (max - min) / ((1u32 << self.bits) - 1) as f32;
        let inverse = inverse(scale);
        out.codes.extend(block.iter().map(|it| self.clipped((it - min) * inverse + 0.5)));
        out.scales.push(f16::from_f32(scale));
        out.mins.push(f16::from_f32(min));
    }

    /// The element that is farthest from 0, the first of equals, has the integer 0: below the middle
    /// there is one more than above.
    fn below_the_farthest(self, block: &[f32], out: &mut Legacy) {
        let farther = |far: f32, it: &f32| if it.abs() > far.abs() { *it } else { far };
        let far = block[1..].iter().fold(block[0], farther);
        let middle = f32::from(self.middle());
        let scale = far / -middle;
        let inverse = inverse(scale);
        out.codes.extend(block.iter().map(|it| self.clipped(it * inverse + (middle + 0.5))));
        out.scales.push(f16::from_f32(scale));
    }

    /// The integer below, none beyond the largest.
    fn clipped(self, value: f32) -> u8 {
        byte(value).min(((1u32 << self.bits) - 1) as u8)
    }
}

/// The farthest element from 0 is 127 or -127; halves are rounded away from 0.
fn symmetric(block: &[f32], out: &mut Legacy) {
    let far = block.iter().fold(0.0f32, |far, it| far.max(it.abs()));
    let scale = far / 127.0;
    let inverse = inverse(scale);
    let rounded = |value: f32| {
        let (size, whole) = (value.abs(), value.abs().floor());
        let up = whole + (2.0 * (size - whole)).floor();
        if value < 0.0 { -up } else { up }
    };
    out.codes.extend(block.iter().map(|it| byte(rounded(it * inverse)) ^ 0x80));
    out.scales.push(f16::from_f32(scale));
}

/// Infinite for scales whose inverse is beyond float32.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The low byte of the integer below. What no integer of 32 bits is near to, which only the inverse
/// of a tiny scale makes, is 0, as x86 has it; the float16 scale of such a block is 0 too.
fn byte(value: f32) -> u8 {
    if value.abs() < 2147483648.0 { value as i32 as u8 } else { 0 }
}
