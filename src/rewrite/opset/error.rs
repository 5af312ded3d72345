//! Why a model cannot be raised to an operator set.

use super::{NEWEST, OLDEST};
use crate::{codes::Fault, ir::NoMatch, rewrite::PassError, untrusted::Untrusted};

/// A node that has no equal in the new operator set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The node as users know it.
    pub node: String,
    pub op: String,
    pub reason: NoMatch,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpsetError {
    #[error("the model has opset {from}; converting down to {target} is not supported")]
    Down { from: i64, target: i64 },
    #[error("the model has opset {from}; the oldest that can be converted is {OLDEST}")]
    TooOld { from: i64 },
    #[error("opset {target} is not known; the newest is {NEWEST}")]
    TooNew { target: i64 },
    #[error("the model does not import the standard operators, so there is nothing to convert")]
    NoOpset,
    #[error("the model has training information, whose graphs cannot be converted")]
    Training,
    #[error("{} cannot be converted to opset {to}:{}", counted(.refusals), listed(.refusals))]
    Refused { to: i64, refusals: Vec<Refusal> },
    #[error(transparent)]
    Inline(#[from] PassError),
}

impl Fault for OpsetError {
    fn code(&self) -> &'static str {
        match self {
            OpsetError::Inline(it) => it.code(),
            _ => "E410",
        }
    }
}

fn counted(refusals: &[Refusal]) -> String {
    match refusals.len() {
        1 => "a node".to_owned(),
        count => format!("{count} nodes"),
    }
}

fn listed(refusals: &[Refusal]) -> String {
    const MOST: usize = 20;
    let mut list: String = refusals
        .iter()
        .take(MOST)
        .map(|it| {
            let (node, op) = (Untrusted(&it.node), Untrusted(&it.op));
            format!("\n  `{node}` ({op}): {}", Untrusted(&it.reason.0))
        })
        .collect();
    if refusals.len() > MOST {
        list += &format!("\n  and {} more", refusals.len() - MOST);
    }
    list
}
