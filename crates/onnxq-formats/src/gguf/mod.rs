//! GGUF, the file of llama.cpp: metadata by key, then tensors in blocks of ggml's types.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Version 2 differs from 3 in
//! nothing that is read here. A file is bytes of others: what it claims is checked against the bytes
//! that it has, before anything is made of it.

mod blocks;
mod cursor;
mod encode;
mod file;
mod integers;
mod named;
mod summed;
mod tensor;
#[cfg(test)]
mod tests;
mod types;
mod value;
pub mod vocab;
mod writer;

pub use self::{
    blocks::{Legacy, LegacyFormat},
    file::{File, Info},
    types::{Decode, GgmlType},
    value::{Array, Value, ValueType},
    writer::{Layout, SourceError, WriteError, Writer},
};

const MAGIC: &[u8; 4] = b"GGUF";
/// What is written.
const VERSION: u32 = 3;
/// Where tensors begin if a file does not say it.
const ALIGNMENT: u32 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// As many dimensions as a tensor of ggml has at most.
const MOST_DIMS: usize = 4;

/// Whether a regular file begins as GGUF does. What cannot be read is left to whoever opens it.
pub fn is_gguf(path: &std::path::Path) -> bool {
    use std::io::Read;
    let mut head = [0; MAGIC.len()];
    let is_file = path.metadata().is_ok_and(|it| it.is_file());
    let mut read = || std::fs::File::open(path)?.read_exact(&mut head);
    is_file && read().is_ok() && head == *MAGIC
}
