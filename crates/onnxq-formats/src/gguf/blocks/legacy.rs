//! Blocks of 32 elements with one scale, and perhaps a minimum: integers, scales and minima of rows,
//! and the bytes that they are.

use half::f16;

use super::half;
use crate::gguf::GgmlType;

/// Elements of a block.
pub(super) const BLOCK: usize = 32;

/// What tells the types apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LegacyFormat {
    /// Of an integer: 4, 5 or 8.
    pub bits: u32,
    /// Whether blocks have a minimum, which is added; without one zero lies in the middle.
    pub has_min: bool,
}

/// Integers and scales of rows of whole blocks.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Legacy {
    /// One for each element, below `2^bits`.
    pub codes: Vec<u8>,
    /// One for each block.
    pub scales: Vec<f16>,
    /// One for each block, or none.
    pub mins: Vec<f16>,
}

const Q4_0: LegacyFormat = LegacyFormat { bits: 4, has_min: false };
const Q4_1: LegacyFormat = LegacyFormat { bits: 4, has_min: true };
const Q5_0: LegacyFormat = LegacyFormat { bits: 5, has_min: false };
const Q5_1: LegacyFormat = LegacyFormat { bits: 5, has_min: true };
const Q8_0: LegacyFormat = LegacyFormat { bits: 8, has_min: false };

pub(in crate::gguf) fn q4_0(block: &[u8], out: &mut [f32]) {
    Q4_0.values(block, out);
}

pub(in crate::gguf) fn q4_1(block: &[u8], out: &mut [f32]) {
    Q4_1.values(block, out);
}

pub(in crate::gguf) fn q5_0(block: &[u8], out: &mut [f32]) {
    Q5_0.values(block, out);
}

pub(in crate::gguf) fn q5_1(block: &[u8], out: &mut [f32]) {
    Q5_1.values(block, out);
}

pub(in crate::gguf) fn q8_0(block: &[u8], out: &mut [f32]) {
    Q8_0.values(block, out);
}

impl GgmlType {
    /// The format of a type with one scale for 32 elements.
    pub fn legacy(self) -> Option<LegacyFormat> {
        Some(match self {
            GgmlType::Q4_0 => Q4_0,
            GgmlType::Q4_1 => Q4_1,
            GgmlType::Q5_0 => Q5_0,
            GgmlType::Q5_1 => Q5_1,
            GgmlType::Q8_0 => Q8_0,
            _ => return None,
        })
    }
}

impl LegacyFormat {
    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.start() + BLOCK * if self.bits == 8 { 8 } else { 4 } / 8
    }

    /// The integer that stands for 0 where there is no minimum.
    pub fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// What an integer of a block stands for.
    pub fn value(self, code: u8, scale: f16, min: f16) -> f32 {
        if self.has_min {
            return scale.to_f32() * f32::from(code) + min.to_f32();
        }
        scale.to_f32() * f32::from(i16::from(code) - i16::from(self.middle()))
    }

    /// Integers, scales and minima of whole blocks.
    ///
    /// # Panics
    /// If the bytes are no whole blocks.
    pub fn unpack(self, blocks: &[u8]) -> Legacy {
        assert!(blocks.len().is_multiple_of(self.block_bytes()), "rows have whole blocks");
        let mut out = Legacy::default();
        for block in blocks.chunks_exact(self.block_bytes()) {
            out.codes.extend(self.codes(block));
            out.scales.push(half(block, 0));
            out.mins.extend(self.has_min.then(|| half(block, 2)));
        }
        out
    }

    /// The bytes of whole blocks.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn pack(self, parts: &Legacy) -> Vec<u8> {
        let Legacy { codes, scales, mins } = parts;
        assert_eq!(codes.len(), scales.len() * BLOCK, "a block has {BLOCK} elements");
        assert_eq!(mins.len(), if self.has_min { scales.len() } else { 0 }, "minima of blocks");
        let mut out = Vec::with_capacity(scales.len() * self.block_bytes());
        for (i, codes) in codes.chunks_exact(BLOCK).enumerate() {
            out.extend(scales[i].to_le_bytes());
            out.extend(self.has_min.then(|| mins[i].to_le_bytes()).into_iter().flatten());
            self.pack_codes(codes, &mut out);
        }
        out
    }

    /// Where integers begin: behind the scale, the minimum, and the fifth bits.
    fn start(self) -> usize {
        self.fifth_bits() + if self.bits == 5 { 4 } else { 0 }
    }

    fn fifth_bits(self) -> usize {
        if self.has_min { 4 } else { 2 }
    }

    fn values(self, block: &[u8], out: &mut [f32]) {
        let (scale, min) = (half(block, 0), if self.has_min { half(block, 2) } else { f16::ZERO });
        for (to, code) in out.iter_mut().zip(self.codes(block)) {
            *to = self.value(code, scale, min);
        }
    }

    fn codes(self, block: &[u8]) -> [u8; BLOCK] {
        let integers = &block[self.start()..];
        let high = match self.bits {
            5 => {
                let bytes = block[self.fifth_bits()..][..4].try_into().expect("four bytes");
                u32::from_le_bytes(bytes)
            }
            _ => 0,
        };
        std::array::from_fn(|i| match self.bits {
            // They are stored with a sign.
            8 => integers[i] ^ 0x80,
            _ => super::four_bits(integers, i, BLOCK / 2) | ((high >> i & 1) as u8) << 4,
        })
    }

    fn pack_codes(self, codes: &[u8], out: &mut Vec<u8>) {
        if self.bits == 8 {
            out.extend(codes.iter().map(|it| it ^ 0x80));
            return;
        }
        if self.bits == 5 {
            let bit = |(i, code): (usize, &u8)| u32::from(code >> 4 & 1) << i;
            out.extend(codes.iter().enumerate().map(bit).fold(0, |all, it| all | it).to_le_bytes());
        }
        let (low, high) = codes.split_at(BLOCK / 2);
        out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpack_undoes_pack_and_pack_undoes_unpack(
            bytes in proptest::collection::vec(any::<u8>(), 3 * 34),
        ) {
            for kind in GgmlType::ALL.iter().filter(|it| it.legacy().is_some()) {
                let format = kind.legacy().unwrap();
                prop_assert_eq!(format.block_bytes(), kind.bytes());
                let bytes = &bytes[..3 * kind.bytes()];
                let parts = format.unpack(bytes);
                prop_assert_eq!(parts.codes.len(), 3 * kind.elements());
                prop_assert!(parts.codes.iter().all(|it| u32::from(*it) < 1 << format.bits));
                prop_assert_eq!(format.pack(&parts), bytes);
            }
        }
    }
}
