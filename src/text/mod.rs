//! (to come)
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ParseError;
pub fn parse(_: &str) -> Result<crate::ir::Model, ParseError> {
    Err(ParseError)
}
