//! Caches of keys and values: given to a decoder that has none, and stored in eight bits.
//!
//! These are no passes, since they change what callers pass in and get back.

mod add;
mod axes;
mod find;
mod int8;
#[cfg(test)]
mod tests;
mod tokens;

pub use self::{
    add::{Added, add_kv_cache},
    find::{Cache, Cached, caches},
    int8::{Scales, to_int8},
};
use super::{PassError, STANDARD};
use onnxq_ir::{
    Model, NodeId,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    untrusted::Untrusted,
};

/// Why a model gets no cache, or no other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CacheError {
    #[error("the model has a cache of keys and values already: `{}`", Untrusted(node))]
    Cached { node: String },
    #[error("no attention is recognised in the model")]
    NoAttention,
    #[error("the model has no cache of keys and values")]
    NoCache,
    #[error("`{}`: {reason}", Untrusted(node))]
    Node { node: String, reason: String },
    #[error("the cache `{}` holds NaN or Inf on the calibration data", Untrusted(name))]
    NotFinite { name: String },
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl Diagnostic for CacheError {
    fn code(&self) -> Code {
        match self {
            CacheError::NotFinite { .. } => Code::E614,
            CacheError::Pass(it) => it.code(),
            _ => Code::E411,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CacheError::NoCache => Some("`--add-kv-cache` gives it one".into()),
            CacheError::NoAttention => {
                Some("`onnxq pass fuse-attention --trace` says why nothing is recognised".into())
            }
            CacheError::Pass(it) => it.hint(),
            _ => None,
        }
    }
}

/// Brings a model into the form that shows its attention, if it is not. Returns whether it was not.
pub fn prepare(m: &mut Model, ctx: &Ctx) -> Result<bool, CacheError> {
    let is_attention = |it: &NodeId| {
        let op = &m.node(*it).op;
        op.is("Attention") || op.is("com.microsoft.GroupQueryAttention")
    };
    let prepared = m.nodes().iter().any(is_attention);
    super::run(m, if prepared { &["infer-types"] } else { STANDARD }, ctx)?;
    Ok(!prepared)
}
