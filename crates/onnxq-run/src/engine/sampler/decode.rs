//! Integer dot products among machine code: the encodings that kernels of ONNX Runtime use.
//!
//! x86 code has no marks between instructions, so every offset is tried. A match fixes 24 bits, and
//! what lies near a sample is a hundred bytes: chance finds one in 200,000 windows.

/// The instructions near one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// VPDPBUSD or VPDPBUSDS in the EVEX encoding: AVX-512 VNNI.
    pub avx512_vnni: bool,
    /// The same with registers of 512 bits.
    pub avx512_vnni_512: bool,
    /// VPDPBUSD(S) in the VEX encoding, or one of its siblings for other signs: AVX-VNNI.
    pub avx_vnni: bool,
    /// TDPBUSD or one of its siblings: AMX.
    pub amx: bool,
    /// VPMADDUBSW, which adds two products in 16 bits and saturates.
    pub vpmaddubsw: bool,
}

/// What `code` has, at any offset.
pub(super) fn find(code: &[u8]) -> Found {
    let mut found = Found::default();
    for at in 0..code.len() {
        match code[at..] {
            [0x62, p0, p1, p2, op, ..] => found.evex([p0, p1, p2], op),
            [0xc4, p0, p1, op, ..] => found.vex([p0, p1], op),
            _ => {}
        }
    }
    found
}

impl Found {
    /// `62 P0 P1 P2 opcode`: the map is in the low bits of P0; W, a fixed 1 and the prefix in P1;
    /// the length in P2.
    fn evex(&mut self, [p0, p1, p2]: [u8; 3], op: u8) {
        if p0 & 0x0f != 2 || p1 & 0x07 != 0x05 {
            return;
        }
        let w = p1 & 0x80 != 0;
        match op {
            0x50 | 0x51 if !w => {
                self.avx512_vnni = true;
                self.avx512_vnni_512 |= p2 & 0x60 == 0x40;
            }
            0x04 => self.vpmaddubsw = true,
            _ => {}
        }
    }

    /// `C4 P0 P1 opcode`: the map is in the low bits of P0; W, length and prefix in P1.
    fn vex(&mut self, [p0, p1]: [u8; 2], op: u8) {
        if p0 & 0x1f != 2 {
            return;
        }
        let (w, long, prefix) = (p1 & 0x80 != 0, p1 & 4 != 0, p1 & 3);
        match op {
            // Of the prefixes, 66 is u8 by s8; the others are s8 by s8 and so on.
            0x50 | 0x51 if !w => self.avx_vnni = true,
            0x5e if !w && !long => self.amx = true,
            0x04 if prefix == 1 => self.vpmaddubsw = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GNU as encodes them.
    const DOTS: [(&str, &[u8], Found); 11] = [
        ("vpdpbusd zmm1, zmm2, zmm3", &[0x62, 0xf2, 0x6d, 0x48, 0x50, 0xcb], ZMM),
        ("vpdpbusds zmm17, zmm18, [rax]", &[0x62, 0xe2, 0x6d, 0x40, 0x51, 0x08], ZMM),
        ("vpdpbusd ymm17, ymm2, ymm3", &[0x62, 0xe2, 0x6d, 0x28, 0x50, 0xcb], EVEX),
        ("vpdpbusd zmm1, zmm2, [rax]{1to16}", &[0x62, 0xf2, 0x6d, 0x58, 0x50, 0x08], ZMM),
        ("{vex} vpdpbusd ymm1, ymm2, ymm3", &[0xc4, 0xe2, 0x6d, 0x50, 0xcb], VEX),
        ("{vex} vpdpbusds xmm1, xmm2, xmm3", &[0xc4, 0xe2, 0x69, 0x51, 0xcb], VEX),
        ("vpdpbssd ymm1, ymm2, ymm3", &[0xc4, 0xe2, 0x6f, 0x50, 0xcb], VEX),
        ("tdpbusd tmm1, tmm2, tmm3", &[0xc4, 0xe2, 0x61, 0x5e, 0xca], AMX),
        ("vpmaddubsw ymm1, ymm2, ymm3", &[0xc4, 0xe2, 0x6d, 0x04, 0xcb], MADD),
        ("vpmaddubsw zmm1, zmm2, zmm3", &[0x62, 0xf2, 0x6d, 0x48, 0x04, 0xcb], MADD),
        ("vpmaddubsw ymm9, ymm10, [r8]", &[0xc4, 0x42, 0x2d, 0x04, 0x08], MADD),
    ];
    const NONE: Found = Found {
        avx512_vnni: false,
        avx512_vnni_512: false,
        avx_vnni: false,
        amx: false,
        vpmaddubsw: false,
    };
    const EVEX: Found = Found { avx512_vnni: true, ..NONE };
    const ZMM: Found = Found { avx512_vnni_512: true, ..EVEX };
    const VEX: Found = Found { avx_vnni: true, ..NONE };
    const AMX: Found = Found { amx: true, ..NONE };
    const MADD: Found = Found { vpmaddubsw: true, ..NONE };

    #[test]
    fn dot_products_are_found_at_any_offset() {
        for (text, code, expected) in DOTS {
            assert_eq!(find(code), expected, "{text}");
            let shifted = [&[0x90; 7], code, &[0x90; 3]].concat();
            assert_eq!(find(&shifted), expected, "{text} between others");
        }
    }

    #[test]
    fn other_instructions_are_not() {
        let others: [(&str, &[u8]); 9] = [
            ("vfmadd231ps zmm1, zmm2, zmm3", &[0x62, 0xf2, 0x6d, 0x48, 0xb8, 0xcb]),
            ("vpdpwssd zmm1, zmm2, zmm3", &[0x62, 0xf2, 0x6d, 0x48, 0x52, 0xcb]),
            ("vmulps ymm1, ymm2, ymm3", &[0xc5, 0xec, 0x59, 0xcb]),
            ("vsqrtps zmm1, zmm2 (map 1)", &[0x62, 0xf1, 0x7c, 0x48, 0x51, 0xca]),
            ("W = 1", &[0x62, 0xf2, 0xed, 0x48, 0x50, 0xcb]),
            ("the fixed bit is 0", &[0x62, 0xf2, 0x69, 0x48, 0x50, 0xcb]),
            ("VEX, W = 1", &[0xc4, 0xe2, 0xed, 0x50, 0xcb]),
            ("VEX, map 1", &[0xc4, 0xe1, 0x6d, 0x50, 0xcb]),
            ("cut off", &[0x62, 0xf2, 0x6d, 0x48]),
        ];
        for (text, code) in others {
            assert_eq!(find(code), NONE, "{text}");
        }
        assert_eq!(find(&[]), NONE);
    }
}
