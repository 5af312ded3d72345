//! `GatherBlockQuantized`: element types and zero points.

use super::{Found, ModelIndex, Severity, factor};
use onnxq_ir::{NodeId, tensor::DType};

const OP: &str = "com.microsoft.GatherBlockQuantized";

pub(super) fn typed(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let dtype = l.dtype(node, 0)?;
    let is_typed = matches!(dtype, DType::I4 | DType::U4 | DType::I2 | DType::U2);
    (l.is(node, OP) && is_typed).then(|| Found {
        severity: Severity::Slow,
        what: format!("the table is {dtype}"),
        factor: factor(5.5, 7.0, "a table of 32000×768 in 4 bits, 128 and 512 rows"),
        hint: "pack the quantized values in bytes (uint8 with `bits`)",
        fix: Some(("packed-gather", node)),
    })
}

pub(super) fn implicit_zero(l: &ModelIndex, node: NodeId) -> Option<Found> {
    (l.is(node, OP) && l.input(node, 3).is_none()).then(|| Found {
        severity: Severity::Advice,
        what: "no zero points".into(),
        factor: None,
        hint: "state them: what is meant without them differs between element types and versions",
        fix: Some(("explicit-zeros", node)),
    })
}
