//! Element types: their width, their ONNX number and their name in the ONNX text syntax.

use std::fmt;

macro_rules! dtypes {
    ($($variant:ident = $number:literal, $bits:literal, $name:literal;)*) => {
        /// An ONNX element type (`TensorProto.DataType`, IR version 14).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DType { $($variant,)* }

        impl DType {
            /// Every element type, in the order of its ONNX number.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// Bits per element; zero for strings, whose length varies.
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// The value of `TensorProto.DataType`.
            pub fn number(self) -> i32 {
                match self { $(DType::$variant => $number,)* }
            }

            pub fn from_number(number: i32) -> Option<DType> {
                match number { $($number => Some(DType::$variant),)* _ => None }
            }

            /// The spelling of the ONNX text syntax.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<DType> {
                match name { $($name => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    F32 = 1, 32, "float";
    U8 = 2, 8, "uint8";
    I8 = 3, 8, "int8";
    U16 = 4, 16, "uint16";
    I16 = 5, 16, "int16";
    I32 = 6, 32, "int32";
    I64 = 7, 64, "int64";
    String = 8, 0, "string";
    Bool = 9, 8, "bool";
    F16 = 10, 16, "float16";
    F64 = 11, 64, "double";
    U32 = 12, 32, "uint32";
    U64 = 13, 64, "uint64";
    C64 = 14, 64, "complex64";
    C128 = 15, 128, "complex128";
    BF16 = 16, 16, "bfloat16";
    F8E4M3FN = 17, 8, "float8e4m3fn";
    F8E4M3FNUZ = 18, 8, "float8e4m3fnuz";
    F8E5M2 = 19, 8, "float8e5m2";
    F8E5M2FNUZ = 20, 8, "float8e5m2fnuz";
    U4 = 21, 4, "uint4";
    I4 = 22, 4, "int4";
    F4E2M1 = 23, 4, "float4e2m1";
    F8E8M0 = 24, 8, "float8e8m0";
    U2 = 25, 2, "uint2";
    I2 = 26, 2, "int2";
    F6E2M3 = 27, 6, "float6e2m3";
    F6E3M2 = 28, 6, "float6e3m2";
}

impl DType {
    /// Types of which a weight can be read as `f32` and quantized.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
    }

    /// Bytes of `count` elements packed without gaps; `None` if that overflows.
    pub fn nbytes(self, count: usize) -> Option<usize> {
        Some(count.checked_mul(self.bits())?.div_ceil(8))
    }

    /// Bytes of a tensor; `None` beyond what memory can address, also if some dimension is 0.
    ///
    /// So every product of some of its dimensions fits too.
    pub(crate) fn nbytes_of(self, shape: &[usize]) -> Option<usize> {
        let product = |product: usize, dim: &usize| product.checked_mul(*dim.max(&1));
        let most = shape.iter().try_fold(1, product)?;
        self.nbytes(most).filter(|it| isize::try_from(*it).is_ok())?;
        self.nbytes(shape.iter().product())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for &it in DType::ALL {
            assert_eq!(DType::from_number(it.number()), Some(it));
            assert_eq!(DType::from_name(it.name()), Some(it));
        }
        assert_eq!(DType::from_number(0), None);
    }

    #[test]
    fn narrow_types_round_up_to_bytes() {
        assert_eq!(DType::I4.nbytes(3), Some(2));
        assert_eq!(DType::U2.nbytes(5), Some(2));
        assert_eq!(DType::F64.nbytes(usize::MAX / 8), None);
    }
}
