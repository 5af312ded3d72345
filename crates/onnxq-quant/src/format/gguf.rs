//! The types of ggml that weights have in GGUF files.

use super::{Fitted, Format};
use crate::{
    ops::{Site, Weight},
    plan::Activation,
};
use onnxq_ir::{
    Model, NoMatch, no_match,
    tensor::{Packing, Superblock, ZeroPoints},
};
use onnxq_numerics::scheme::{Granularity, Range, Scheme};

pub const GGUF: Format = Format {
    name: "gguf",
    help: "the types of ggml, for llama.cpp: the result is a GGUF file",
    packing: Packing::BlockedRows,
    place,
    scheme,
    half_scales: true,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[],
    stays_canonical: |_, _| false,
    opset: None,
    fitted,
};

/// A type of ggml whose integers solvers choose.
pub struct GgmlScheme {
    /// As recipes and llama.cpp call it, in small letters.
    pub name: &'static str,
    pub scheme: Scheme,
    /// What llama.cpp takes where rows are no whole superblocks.
    narrow: Option<&'static str>,
}

const fn flat(name: &'static str, bits: u32, zero_points: ZeroPoints, range: Range) -> GgmlScheme {
    let (granularity, superblock) = (Granularity::Block(32), None);
    GgmlScheme {
        name,
        scheme: Scheme { bits, zero_points, granularity, range, superblock },
        narrow: None,
    }
}

const fn nested(
    name: &'static str,
    (bits, zero_points): (u32, ZeroPoints),
    block: usize,
    scale_bits: u32,
    narrow: &'static str,
) -> GgmlScheme {
    let superblock = Some(Superblock { blocks: 256 / block, bits: scale_bits });
    let (granularity, range) = (Granularity::Block(block), Range::Full);
    GgmlScheme {
        name,
        scheme: Scheme { bits, zero_points, granularity, range, superblock },
        narrow: Some(narrow),
    }
}

const SYMMETRIC: ZeroPoints = ZeroPoints::Symmetric;
const MINIMUM: ZeroPoints = ZeroPoints::Minimum;

/// In alphabetical order.
pub const GGML_SCHEMES: &[GgmlScheme] = &[
    nested("q2_k", (2, MINIMUM), 16, 4, "q4_0"),
    nested("q3_k", (3, SYMMETRIC), 16, 6, "q4_0"),
    flat("q4_0", 4, SYMMETRIC, Range::Full),
    flat("q4_1", 4, MINIMUM, Range::Full),
    nested("q4_k", (4, MINIMUM), 32, 6, "q5_0"),
    flat("q5_0", 5, SYMMETRIC, Range::Full),
    flat("q5_1", 5, MINIMUM, Range::Full),
    nested("q5_k", (5, MINIMUM), 32, 6, "q5_1"),
    nested("q6_k", (6, SYMMETRIC), 16, 8, "q8_0"),
    flat("q8_0", 8, SYMMETRIC, Range::Narrow),
];

impl GgmlScheme {
    /// Bytes of a row of whole blocks.
    pub fn row_bytes(&self, columns: usize) -> u64 {
        let Scheme { bits, zero_points, granularity, superblock, .. } = self.scheme;
        let Granularity::Block(block) = granularity else { unreachable!("types have blocks") };
        let parts = if zero_points == MINIMUM { 2 } else { 1 };
        let bits = match superblock {
            None => block * bits as usize + parts * 16,
            Some(it) => it.blocks * (block * bits as usize + parts * it.bits as usize) + parts * 16,
        };
        let elements = block * superblock.map_or(1, |it| it.blocks);
        (columns / elements * bits / 8) as u64
    }
}

/// The type of ggml that a scheme is.
pub fn ggml(scheme: &Scheme) -> Option<&'static GgmlScheme> {
    GGML_SCHEMES.iter().find(|it| it.scheme == *scheme)
}

/// The scheme of a type of ggml.
pub fn ggml_scheme(name: &str) -> Option<&'static GgmlScheme> {
    GGML_SCHEMES.iter().find(|it| it.name == name)
}

fn place(m: &Model, site: &Site) -> Result<(), NoMatch> {
    let rank = m.constant(site.weight)?.shape.len();
    match site.kind {
        Weight::MatMul | Weight::Gather if rank == 2 => Ok(()),
        _ => Err(no_match!("llama.cpp quantizes matrices of products and tables only")),
    }
}

fn scheme(scheme: Scheme, activation: Option<Activation>) -> Result<Scheme, NoMatch> {
    if activation.is_some() {
        return Err(no_match!("llama.cpp quantizes activations by itself: set `activation: none`"));
    }
    match ggml(&scheme) {
        Some(it) => Ok(it.scheme),
        None => Err(no_match!("its `dtype` is a type of ggml: {}", names())),
    }
}

/// The names of all types.
fn names() -> String {
    GGML_SCHEMES.iter().map(|it| it.name).collect::<Vec<_>>().join(", ")
}

/// The type for rows of so many values, and why it is another one.
fn fitted(scheme: Scheme, columns: usize) -> Result<Fitted, NoMatch> {
    let Some(found) = ggml(&scheme) else { return Ok((scheme, None)) };
    let Some(narrow) = found.narrow.filter(|_| !columns.is_multiple_of(256)) else {
        return match columns.is_multiple_of(32) {
            true => Ok((scheme, None)),
            false => Err(no_match!("its rows of {columns} are no whole blocks of 32")),
        };
    };
    let other = ggml_scheme(narrow).expect("a name of the table").scheme;
    let (other, _) = fitted(other, columns)?;
    let name = found.name;
    Ok((
        other,
        Some(no_match!("{narrow}, not {name}: its rows of {columns} are no whole blocks of 256")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_no_superblocks_get_what_llama_cpp_gives_them() {
        let of = |name: &str| ggml_scheme(name).unwrap().scheme;
        assert_eq!(fitted(of("q4_k"), 512).unwrap(), (of("q4_k"), None));
        let (scheme, note) = fitted(of("q4_k"), 704).unwrap();
        assert_eq!(ggml(&scheme).unwrap().name, "q5_0");
        let why = "q5_0, not q4_k: its rows of 704 are no whole blocks of 256";
        assert_eq!(note.unwrap().to_string(), why);
        assert!(fitted(of("q8_0"), 40).is_err());
    }

    #[test]
    fn rows_have_the_bytes_of_their_blocks() {
        let of = |name: &str| ggml_scheme(name).unwrap().row_bytes(512);
        assert_eq!(["q2_k", "q3_k", "q4_k"].map(of), [2 * 84, 2 * 110, 2 * 144]);
        assert_eq!(["q5_k", "q6_k", "q8_0"].map(of), [2 * 176, 2 * 210, 16 * 34]);
        assert_eq!(["q4_0", "q4_1", "q5_0", "q5_1"].map(of), [16 * 18, 16 * 20, 16 * 22, 16 * 24]);
    }

    #[test]
    fn every_type_is_told_from_the_others() {
        for it in GGML_SCHEMES {
            assert_eq!(ggml(&it.scheme).unwrap().name, it.name);
            assert!(scheme(it.scheme, None).is_ok());
            assert!(scheme(it.scheme, Some(Activation::DynamicPerToken)).is_err());
        }
    }
}
