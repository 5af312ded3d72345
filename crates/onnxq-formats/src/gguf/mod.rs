//! GGUF, the file of llama.cpp: metadata by key, then tensors in blocks of ggml's types.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Version 2 differs from 3 in
//! nothing that is read here. A file is bytes of others: what it claims is checked against the bytes
//! that it has, before anything is made of it.

mod blocks;
mod cursor;
mod encode;
mod file;
mod named;
mod tensor;
#[cfg(test)]
mod tests;
mod types;
mod value;
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
