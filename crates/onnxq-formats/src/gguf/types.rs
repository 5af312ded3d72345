//! ggml's types of tensors: how many elements a block has, in how many bytes, and what reads it.

use std::fmt;

use onnxq_ir::tensor::DType;

use super::blocks::{iq, k, legacy, ternary};

/// Values of a block from its bytes.
pub(super) type Block = fn(&[u8], &mut [f32]);

/// What the bytes of a tensor are.
#[derive(Clone, Copy)]
pub enum Decode {
    /// One element after another, as ONNX stores them too.
    Plain(DType),
    /// Blocks with scales of their own.
    Blocks(Block),
    /// Known by name and size only.
    Unread,
}

macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $name:literal, $elements:literal, $bytes:literal, $decode:expr;)*) => {
        /// The type of a tensor in ggml.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum GgmlType { $($variant,)* }

        impl GgmlType {
            /// Every type, in the order of its number.
            pub const ALL: &'static [GgmlType] = &[$(GgmlType::$variant,)*];

            pub fn id(self) -> u32 {
                match self { $(GgmlType::$variant => $id,)* }
            }

            pub fn from_id(id: u32) -> Option<GgmlType> {
                match id { $($id => Some(GgmlType::$variant),)* _ => None }
            }

            /// As llama.cpp spells it.
            pub fn name(self) -> &'static str {
                match self { $(GgmlType::$variant => $name,)* }
            }

            /// Elements of a block; a row has whole blocks.
            pub fn elements(self) -> usize {
                match self { $(GgmlType::$variant => $elements,)* }
            }

            /// Bytes of a block.
            pub fn bytes(self) -> usize {
                match self { $(GgmlType::$variant => $bytes,)* }
            }

            pub fn decode(self) -> Decode {
                match self { $(GgmlType::$variant => $decode,)* }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "F32", 1, 4, Decode::Plain(DType::F32);
    F16 = 1, "F16", 1, 2, Decode::Plain(DType::F16);
    Q4_0 = 2, "Q4_0", 32, 18, Decode::Blocks(legacy::q4_0);
    Q4_1 = 3, "Q4_1", 32, 20, Decode::Blocks(legacy::q4_1);
    Q5_0 = 6, "Q5_0", 32, 22, Decode::Blocks(legacy::q5_0);
    Q5_1 = 7, "Q5_1", 32, 24, Decode::Blocks(legacy::q5_1);
    Q8_0 = 8, "Q8_0", 32, 34, Decode::Blocks(legacy::q8_0);
    // Of products in memory only; what is in files is none of these.
    Q8_1 = 9, "Q8_1", 32, 40, Decode::Unread;
    Q2K = 10, "Q2_K", 256, 84, Decode::Blocks(k::q2);
    Q3K = 11, "Q3_K", 256, 110, Decode::Blocks(k::q3);
    Q4K = 12, "Q4_K", 256, 144, Decode::Blocks(k::q4);
    Q5K = 13, "Q5_K", 256, 176, Decode::Blocks(k::q5);
    Q6K = 14, "Q6_K", 256, 210, Decode::Blocks(k::q6);
    Q8K = 15, "Q8_K", 256, 292, Decode::Unread;
    Iq2Xxs = 16, "IQ2_XXS", 256, 66, Decode::Unread;
    Iq2Xs = 17, "IQ2_XS", 256, 74, Decode::Unread;
    Iq3Xxs = 18, "IQ3_XXS", 256, 98, Decode::Unread;
    Iq1S = 19, "IQ1_S", 256, 50, Decode::Unread;
    Iq4Nl = 20, "IQ4_NL", 32, 18, Decode::Blocks(iq::iq4_nl);
    Iq3S = 21, "IQ3_S", 256, 110, Decode::Unread;
    Iq2S = 22, "IQ2_S", 256, 82, Decode::Unread;
    Iq4Xs = 23, "IQ4_XS", 256, 136, Decode::Blocks(iq::iq4_xs);
    I8 = 24, "I8", 1, 1, Decode::Plain(DType::I8);
    I16 = 25, "I16", 1, 2, Decode::Plain(DType::I16);
    I32 = 26, "I32", 1, 4, Decode::Plain(DType::I32);
    I64 = 27, "I64", 1, 8, Decode::Plain(DType::I64);
    F64 = 28, "F64", 1, 8, Decode::Plain(DType::F64);
    Iq1M = 29, "IQ1_M", 256, 56, Decode::Unread;
    BF16 = 30, "BF16", 1, 2, Decode::Plain(DType::BF16);
    Tq1_0 = 34, "TQ1_0", 256, 54, Decode::Blocks(ternary::tq1_0);
    Tq2_0 = 35, "TQ2_0", 256, 66, Decode::Blocks(ternary::tq2_0);
    Mxfp4 = 39, "MXFP4", 32, 17, Decode::Blocks(iq::mxfp4);
    Nvfp4 = 40, "NVFP4", 64, 36, Decode::Unread;
    Q1_0 = 41, "Q1_0", 128, 18, Decode::Unread;
}

/// Numbers of types that ggml once had: their blocks were laid out for single processors.
const REMOVED: [(u32, &str); 8] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

impl GgmlType {
    pub fn from_name(name: &str) -> Option<GgmlType> {
        GgmlType::ALL.iter().copied().find(|it| it.name() == name)
    }

    pub fn is_read(self) -> bool {
        !matches!(self.decode(), Decode::Unread)
    }

    /// The names of all types that can be read.
    pub fn readable() -> String {
        let read = GgmlType::ALL.iter().filter(|it| it.is_read());
        read.map(|it| it.name()).collect::<Vec<_>>().join(", ")
    }

    /// Bytes of a row of `elements`; `None` if they are no whole blocks, or too many.
    pub fn row_bytes(self, elements: usize) -> Option<usize> {
        let whole = elements.is_multiple_of(self.elements());
        whole.then(|| (elements / self.elements()).checked_mul(self.bytes()))?
    }

    /// What a number is called that is no type of today.
    pub(super) fn name_of(id: u32) -> String {
        match REMOVED.iter().find(|it| it.0 == id) {
            Some((_, name)) => format!("{name} (which llama.cpp has taken out)"),
            None => format!("number {id}"),
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for &it in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(it.id()), Some(it));
            assert_eq!(GgmlType::from_name(it.name()), Some(it));
            assert!(REMOVED.iter().all(|removed| removed.0 != it.id()));
        }
        assert_eq!(GgmlType::from_id(4), None);
    }

    #[test]
    fn rows_have_whole_blocks() {
        assert_eq!(GgmlType::Q4_0.row_bytes(64), Some(36));
        assert_eq!(GgmlType::Q4_0.row_bytes(33), None);
        assert_eq!(GgmlType::F64.row_bytes(usize::MAX), None);
    }
}
