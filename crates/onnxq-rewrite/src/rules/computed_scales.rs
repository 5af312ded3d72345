//! The constant weight of a `MatMulNBits` goes behind an `Identity` where scales or zero points are
//! computed.
//!
//! ONNX Runtime's kernel of accuracy level 4 packs a constant weight together with its scales and
//! zero points, once. Those that are no constants by then are missing from it, and results are
//! wrong: zeros without scales. A weight that is no constant either is not packed, which is slow and
//! right. Where a `Cast` of a constant makes the scales, only sessions with optimizations off see it
//! as computed; all others remove the `Identity`, too, and lose nothing.
//!
//! ```text
//! MatMulNBits(x, w, Cast(s))      →      MatMulNBits(x, Identity(w), Cast(s))
//! ```

use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, no_match};

pub(super) const COMPUTED_SCALES: Rule = Rule {
    name: "computed-scales",
    help: "keep MatMulNBits from packing its weight without scales that are computed",
    root: OP,
    apply,
};

const OP: &str = "com.microsoft.MatMulNBits";
const WEIGHT: usize = 1;
/// Scales and zero points.
const PACKED_WITH_IT: [usize; 2] = [2, 3];

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    if m.int_attr(node, "accuracy_level", 0) != 4 {
        return Err(no_match!("its accuracy level is not 4: it reads the scales when it runs"));
    }
    let weight = m.operand(node, WEIGHT)?;
    m.constant(weight)?;
    if !has_computed(m, node) {
        return Err(no_match!("its scales and zero points are constant"));
    }
    let mut patch = Patch::before(node);
    let name = format!("{}_unpacked", m.value(weight).name);
    let hidden = patch.step(&name, "Identity", [weight.into()], Attrs::default());
    Ok(patch.rewire(node, WEIGHT, hidden))
}

fn has_computed(m: &Model, node: NodeId) -> bool {
    let mut inputs = PACKED_WITH_IT.into_iter().filter_map(|it| m.operand(node, it).ok());
    inputs.any(|it| m.constant(it).is_err())
}

/// Whether the kernel would pack a constant at this input without what belongs to it.
pub(crate) fn must_not_be_constant(m: &Model, node: NodeId, input: usize) -> bool {
    let is_packed = input == WEIGHT && m.node(node).op.is(OP);
    is_packed && m.int_attr(node, "accuracy_level", 0) == 4 && has_computed(m, node)
}
