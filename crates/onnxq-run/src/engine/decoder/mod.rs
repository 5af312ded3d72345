//! Continuing a text token by token. What a model remembers of it stays in the engine.

mod pairs;
mod shared;

#[cfg(feature = "runtime")]
pub(super) use self::pairs::logits;
pub use self::{
    pairs::{NoCache, Pair, Pairs},
    shared::shares_buffer,
};
use super::{EngineError, Stop};

/// Which rows of logits a caller wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    None,
    /// After the last token that was fed.
    Last,
    /// After each token that was fed.
    All,
}

/// Rows of logits, one behind the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// Tokens that the model knows.
    pub width: usize,
    pub values: Vec<f32>,
}

impl Logits {
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

/// A text that a model has read as far as it goes.
pub trait Decoder: Send {
    /// Tokens that were read.
    fn length(&self) -> usize;

    /// Forgets all but the first tokens.
    fn keep(&mut self, length: usize) -> Result<(), EngineError>;

    /// Reads more tokens. If that fails or is stopped, what was read before is still there.
    fn feed(&mut self, ids: &[u32], rows: Rows, stop: &Stop) -> Result<Logits, EngineError>;

    /// Bytes that one token takes in memory.
    fn bytes_per_token(&self) -> u64;

    /// More tokens than that do not fit, by the shape of the model's inputs.
    fn most(&self) -> Option<usize>;

    /// Why nothing is remembered: every step reads the whole text again.
    fn no_cache(&self) -> Option<&NoCache>;
}
