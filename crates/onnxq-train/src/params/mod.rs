//! Weights of a model as leaves of a tape, and what of them is trained.

mod grads;
mod quantized;
mod weights;

pub(crate) use self::weights::is_weight;
pub use self::{
    grads::{GroupGrads, Pool, StepGrads},
    quantized::{Layout, Quantized},
    weights::{Change, Kind, Leaves, Role, Selection, Trained, Weight, Weights},
};

/// A weight in one orientation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeafId(pub(crate) usize);
