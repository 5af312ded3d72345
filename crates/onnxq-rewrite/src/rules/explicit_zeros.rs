//! `GatherBlockQuantized` states its zero points.
//!
//! What it means without them differs: 0 for typed values, the middle of the range for packed ones.

use super::recode::{bits, packed_rows, repeated};
use crate::Rule;
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, no_match,
    tensor::{DType, Tensor},
};

pub(super) const EXPLICIT_ZEROS: Rule = Rule {
    name: "explicit-zeros",
    help: "state the zero points of GatherBlockQuantized",
    root: "com.microsoft.GatherBlockQuantized",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    if m.operand(node, 3).is_ok() {
        return Err(no_match!("it has zero points"));
    }
    let data = m.operand(node, 0)?;
    let quantized = m.constant(data)?;
    bits(quantized.dtype)?;
    let scales = m.constant(m.operand(node, 2)?)?.shape.clone();
    let zero_points = match quantized.dtype {
        DType::U8 => match m.int_attr(node, "bits", 4) {
            8 => repeated(&Tensor::new(DType::U8, vec![], vec![128u8]), scales)?,
            4 => packed_rows(&repeated(&Tensor::new(DType::U4, vec![], vec![8u8]), scales)?)?,
            2 => packed_rows(&repeated(&Tensor::new(DType::U2, vec![], vec![2u8]), scales)?)?,
            it => return Err(no_match!("quantized values of {it} bits")),
        },
        typed => repeated(&Tensor::new(typed, vec![], vec![0u8]), scales)?,
    };
    let mut patch = Patch::before(node);
    let zero_points = patch.constant(&format!("{}_zeros", m.value(data).name), zero_points);
    Ok(patch.rewire(node, 3, zero_points))
}
