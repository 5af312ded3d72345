//! What went wrong or is worth knowing: errors and warnings with codes that scripts can rely on.

mod codes;
mod warning;

pub use codes::{
    Code, EXIT_BUG, EXIT_ENVIRONMENT, EXIT_FINE, EXIT_GATE, EXIT_NOTHING, EXIT_REJECTED,
    EXIT_UNSUPPORTED, EXIT_USAGE, UnknownCode,
};
pub use warning::Warning;

/// An error with a code that a script can rely on.
pub trait Diagnostic: std::error::Error {
    /// Which row of the table of codes explains it.
    fn code(&self) -> Code;
    /// Advice, apart from the facts of the message.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// So that `?` makes one of any error with a code.
impl<E: Diagnostic + Send + Sync + 'static> From<E> for Box<dyn Diagnostic + Send + Sync> {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}
