//! Every pass; to add one, add a file and a line.

mod dedupe_constants;
mod dedupe_nodes;
mod fold_constants;
mod hoist_loop_state;
mod infer_types;
mod inline_functions;
mod own_constants;
mod raise_opset;
mod raise_opset_static;
mod remove_dead;
mod share_transposed;
mod simplify_mask;
mod tie_constants;
mod widen_constants;

pub(super) use self::{
    inline_functions::inline_all_versions,
    simplify_mask::{Site, build},
};
use super::Pass;
use onnxq_ir::{
    Op,
    ops::{self, Traits},
};

/// In alphabetical order.
pub const PASSES: &[&Pass] = &[
    &dedupe_constants::DEDUPE_CONSTANTS,
    &dedupe_nodes::DEDUPE_NODES,
    &fold_constants::FOLD_CONSTANTS,
    &hoist_loop_state::HOIST_LOOP_STATE,
    &infer_types::INFER_TYPES,
    &inline_functions::INLINE_FUNCTIONS,
    &widen_constants::NARROW_CONSTANTS,
    &own_constants::OWN_CONSTANTS,
    &raise_opset::RAISE_OPSET,
    &raise_opset_static::RAISE_OPSET_STATIC,
    &remove_dead::REMOVE_DEAD,
    &share_transposed::SHARE_TRANSPOSED,
    &simplify_mask::SIMPLIFY_MASK,
    &tie_constants::TIE_CONSTANTS,
    &widen_constants::WIDEN_CONSTANTS,
];

/// Whether the operator gives a different result each time; those of unknown domains by name.
fn is_random(op: &Op) -> bool {
    let known = op.info().or_else(|| ops::named(&op.name));
    known.is_some_and(|it| it.has(Traits::RANDOM))
}
