//! Forms that the imported operator sets do not have.

use super::{super::model_index::Grain, Found, ModelIndex, Severity};
use onnxq_ir::{NodeId, tensor::DType};

pub(super) fn opset(l: &ModelIndex, node: NodeId) -> Option<Found> {
    if !l.is(node, "DequantizeLinear") && !l.is(node, "QuantizeLinear") {
        return None;
    }
    let opset = l.m.opset("");
    let stored = if l.is(node, "QuantizeLinear") { 2 } else { 0 };
    let rank = l.m.rank(l.input(node, 0)?).unwrap_or(2);
    let (needs, what) = match (l.dtype(node, stored), l.grain(node, rank)) {
        (Some(it @ (DType::I2 | DType::U2)), _) => (25, format!("{it}")),
        (Some(it @ (DType::I4 | DType::U4 | DType::I16 | DType::U16)), _) => (21, format!("{it}")),
        (_, Some(Grain::Blocks { .. })) => (21, "blocks".to_owned()),
        (_, Some(Grain::Channel { .. })) => (13, "scales per channel".to_owned()),
        _ => return None,
    };
    (opset < needs).then(|| Found {
        severity: Severity::Broken,
        what: format!("{what} from opset {needs} on, the model has {opset}"),
        factor: None,
        hint: "raise the operator set: `onnxq convert --opset`",
        fix: None,
    })
}

pub(super) fn half_dynamic(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let dtype = l.dtype(node, 0)?;
    (l.is(node, "DynamicQuantizeLinear") && dtype != DType::F32).then(|| Found {
        severity: Severity::Broken,
        what: format!("its input is {dtype}, and must be float"),
        factor: None,
        hint: "quantize the float32 model, or let `onnxq quantize` do it, which adds the Casts",
        fix: None,
    })
}
