//! Every pass; to add one, add a file and a line.

mod dedupe_constants;
mod dedupe_nodes;
mod fold_constants;
mod infer_types;
mod inline_functions;
mod raise_opset;
mod raise_opset_static;
mod remove_dead;
mod simplify_mask;

pub(super) use self::{
    inline_functions::inline_all_versions,
    simplify_mask::{Site, build},
};
use super::Pass;
use onnxq_ir::Op;

/// In alphabetical order.
pub const PASSES: &[&Pass] = &[
    &dedupe_constants::DEDUPE_CONSTANTS,
    &dedupe_nodes::DEDUPE_NODES,
    &fold_constants::FOLD_CONSTANTS,
    &infer_types::INFER_TYPES,
    &inline_functions::INLINE_FUNCTIONS,
    &raise_opset::RAISE_OPSET,
    &raise_opset_static::RAISE_OPSET_STATIC,
    &remove_dead::REMOVE_DEAD,
    &simplify_mask::SIMPLIFY_MASK,
];

/// Whether the operator gives a different result each time.
fn is_random(op: &Op) -> bool {
    const RANDOM: [&str; 8] = [
        "BiasDropout",
        "BitmaskDropout",
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomUniform",
        "Sampling",
    ];
    let name = op.name.strip_suffix("Like").unwrap_or(&op.name);
    RANDOM.contains(&name)
}
