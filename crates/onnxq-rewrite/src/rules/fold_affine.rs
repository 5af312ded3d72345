//! A constant gain or shift of the channels moves into the convolution before it.
//!
//! ```text
//! Add(Mul(Conv(x, w, b), g), s)      →      Conv(x, w·g, b·g + s)
//! ```
//!
//! ONNX Runtime folds constants `[C, 1, 1]`, no scalars (MobileOne and PP-LCNet have them), and
//! nothing into `ConvTranspose`.

use super::channels::{Affine, ChannelAxis, into_results};
use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch};

pub(super) const FOLD_AFFINE: Rule = Rule {
    name: "fold-affine",
    help: "move an Add, Sub, Mul or Div by a constant into the weights of the Conv before it",
    root: "Conv",
    apply,
};

pub(super) const FOLD_AFFINE_TRANSPOSED: Rule = Rule {
    name: "fold-affine-transposed",
    help: "move an Add, Sub, Mul or Div by a constant into the ConvTranspose before it",
    root: "ConvTranspose",
    apply,
};

fn apply(m: &Model, conv: NodeId) -> Result<Patch, NoMatch> {
    let next = m.only_use(m.node(conv).output())?;
    super::same_graph(m, conv, next)?;
    let axis = ChannelAxis::of(m, conv)?;
    let rank = m.constant(m.operand(conv, 1)?)?.shape.len();
    let Affine { gain, shift, .. } = Affine::of(m, next, rank, axis.channels)?;
    into_results(m, conv, gain, &shift, next)
}
