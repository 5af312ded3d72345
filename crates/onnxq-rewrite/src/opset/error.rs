//! Why a model cannot be raised to an operator set.

use super::NEWEST;
use crate::PassError;
use onnxq_ir::{
    NoMatch,
    diag::{Code, Diagnostic},
    untrusted::Untrusted,
};

/// How many nodes an error names.
const MOST_NAMED: usize = 20;

/// A node that has no equal in the new operator set. The next one is the source of the error,
/// which is how all of them get into a report.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{}` ({}): {}", Untrusted(.node), Untrusted(.op), Untrusted(&.reason.0))]
pub struct Refusal {
    /// The node as users know it.
    pub node: String,
    pub op: String,
    pub reason: NoMatch,
    #[source]
    pub next: Option<Box<Refusal>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpsetError {
    #[error("the model has opset {from}; converting down to {target} is not supported")]
    Down { from: i64, target: i64 },
    #[error("opset {target} is not known; the newest is {NEWEST}")]
    TooNew { target: i64 },
    #[error("the model has training information, whose graphs cannot be converted")]
    Training,
    #[error("{} cannot be converted to opset {to}", nodes(*.count))]
    Refused {
        to: i64,
        count: usize,
        #[source]
        first: Refusal,
    },
    #[error(transparent)]
    Inline(#[from] PassError),
}

impl Refusal {
    /// How many there are, and the first of the chain of those that are named.
    pub(super) fn chain(mut list: Vec<(String, String, NoMatch)>) -> Option<(usize, Refusal)> {
        let count = list.len();
        list.truncate(MOST_NAMED);
        let mut first: Option<Box<Refusal>> = None;
        for (node, op, reason) in list.into_iter().rev() {
            first = Some(Box::new(Refusal { node, op, reason, next: first }));
        }
        Some((count, *first?))
    }
}

impl Diagnostic for OpsetError {
    fn code(&self) -> Code {
        match self {
            OpsetError::Inline(it) => it.code(),
            _ => Code::E410,
        }
    }
}

fn nodes(count: usize) -> String {
    match count {
        1 => "a node".to_owned(),
        2..=MOST_NAMED => format!("{count} nodes"),
        _ => format!("{count} nodes, of which {MOST_NAMED} are named,"),
    }
}
