//! The ONNX text syntax (onnx/docs/Syntax.md), in and out.
//!
//! ```text
//! <ir_version: 10, opset_import: ["" : 21]>
//! main (float[batch,2] x) => (float[batch,2] y) <
//!    float[2] bias = {1, 2}
//! > {
//!    t = Relu (x)
//!    [add] y = Add (t, bias)
//! }
//! ```
//!
//! What the reference reads, this reads with the same meaning; what this prints, the reference
//! reads, unless the printing needs one of the extensions:
//!
//! - A typed name in `<…>` without `= {…}` that no node computes is an initializer with filler
//!   values. The printer leaves the elements of large tensors out this way, and as `{...}`
//!   elsewhere.
//! - Strings may have the escapes `\n`, `\t`, `\xff` and `\u{1f}`.
//! - Half floats may be values (`1.0`, with a point); booleans may be `false` and `true`, or
//!   the value of a byte.
//! - `sparse_tensor(float[9]) {int64[2] {1, 5}, float[2] {1, 2}}` has indices and values.
//! - `type_proto("…")` is an encoded type that the syntax cannot say.
//! - A quoted name may also stand for an operator, its domain and an attribute; functions may
//!   have initializers and `metadata_props`.
//!
//! Names are bare if they are identifiers, else quoted. The name of a node is printed, as
//! `[name] y = …`, if it is not empty and not the name of the node's first output. Doc strings
//! other than the model's and a function's, metadata of nodes and graphs, and quantization
//! annotations are not part of the syntax.

mod attrs;
mod build;
mod elements;
mod lex;
mod parse;
mod print;
mod tree;
mod types;

#[cfg(test)]
mod tests;

pub use self::print::{PrintOptions, print_with};
use self::{lex::Fail, parse::Parser};
use crate::{
    diag::{Code, Diagnostic},
    ir::Model,
};

/// The text is not a model: where, counted from 1, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Diagnostic for ParseError {
    fn code(&self) -> Code {
        Code::E408
    }

    fn hint(&self) -> Option<String> {
        Some("names of other characters than letters, digits and `_` need quotes".to_owned())
    }
}

/// Reads a model. Without a header it is of IR version 10, opset 21 and `com.microsoft` 1.
pub fn parse(text: &str) -> Result<Model, ParseError> {
    read(text).map_err(|it| it.locate(text))
}

/// The model as text, with constants of at most 8 elements and without types between nodes.
pub fn print(model: &Model) -> String {
    print_with(model, &PrintOptions::default())
}

fn read(text: &str) -> Result<Model, Fail> {
    let mut parser = Parser::new(text);
    let file = parser.file()?;
    build::build(file, parser.filler)
}
