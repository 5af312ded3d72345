//! Floats of eight bits: those of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022), their
//! `FNUZ` variants without infinity and negative zero (Noune et al. 2022), and the scales of OCP's
//! Microscaling formats, as ONNX has them since operator set 19.

use super::DType;

/// How the bits of a format are read.
struct Format {
    mantissa_bits: u32,
    bias: i32,
    /// Which bytes are not a number.
    is_nan: fn(u8) -> bool,
    /// Whether all ones in the exponent and none in the mantissa is infinity.
    has_infinity: bool,
}

fn format(dtype: DType) -> Option<Format> {
    let format = |mantissa_bits, bias, is_nan, has_infinity| {
        Some(Format { mantissa_bits, bias, is_nan, has_infinity })
    };
    match dtype {
        DType::F8E4M3FN => format(3, 7, |it| it & 0x7f == 0x7f, false),
        DType::F8E4M3FNUZ => format(3, 8, |it| it == 0x80, false),
        DType::F8E5M2 => format(2, 15, |it| it & 0x7f > 0x7c, true),
        DType::F8E5M2FNUZ => format(2, 16, |it| it == 0x80, false),
        _ => None,
    }
}

/// What reads a byte of that type; `None` for other types.
pub(super) fn reader(dtype: DType) -> Option<impl Fn(u8) -> f32> {
    let of_scale = dtype == DType::F8E8M0;
    let format = format(dtype);
    (of_scale || format.is_some()).then_some(move |byte| match &format {
        Some(format) => format.value(byte),
        None if byte == u8::MAX => f32::NAN,
        None => pow2(i32::from(byte) - 127),
    })
}

impl Format {
    fn value(&self, byte: u8) -> f32 {
        if (self.is_nan)(byte) {
            return f32::NAN;
        }
        let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
        let steps = 1u8 << self.mantissa_bits;
        let (exponent, mantissa) = ((byte & 0x7f) >> self.mantissa_bits, byte % steps);
        if self.has_infinity && byte & 0x7f == 0x7c {
            return sign * f32::INFINITY;
        }
        let fraction = f32::from(mantissa) / f32::from(steps);
        match exponent {
            0 => sign * fraction * pow2(1 - self.bias),
            _ => sign * (1.0 + fraction) * pow2(i32::from(exponent) - self.bias),
        }
    }
}

fn pow2(exponent: i32) -> f32 {
    2f32.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Corners as the papers state them.
    #[test]
    fn corners() {
        let at = |dtype, byte| reader(dtype).unwrap()(byte);
        for (dtype, largest, byte) in [
            (DType::F8E4M3FN, 448.0, 0x7e),
            (DType::F8E5M2, 57_344.0, 0x7b),
            (DType::F8E4M3FNUZ, 240.0, 0x7f),
            (DType::F8E5M2FNUZ, 57_344.0, 0x7f),
        ] {
            assert_eq!((at(dtype, byte), at(dtype, 0)), (largest, 0.0), "{dtype}");
        }
        assert_eq!(at(DType::F8E4M3FN, 0x01), 2f32.powi(-9));
        assert_eq!(at(DType::F8E5M2, 0x81), -(2f32.powi(-16)));
        assert_eq!(at(DType::F8E5M2, 0xfc), f32::NEG_INFINITY);
        assert!(at(DType::F8E4M3FN, 0xff).is_nan() && at(DType::F8E4M3FNUZ, 0x80).is_nan());
        assert_eq!((at(DType::F8E8M0, 127), at(DType::F8E8M0, 128)), (1.0, 2.0));
        assert!(reader(DType::I8).is_none());
    }
}
