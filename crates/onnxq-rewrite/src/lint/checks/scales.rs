//! Scales that no value can have.

use super::{Found, ModelIndex, Severity};
use onnxq_ir::{NodeId, ops::Traits, tensor::Tensor};

pub(super) fn scale(l: &ModelIndex, node: NodeId) -> Option<Found> {
    let info = l.m.node(node).op.info()?;
    if !info.has_quantized_weights() && !info.has(Traits::QUANTIZE) {
        return None;
    }
    let quantized = info.quantized?;
    let divider = quantized.y.map(|[scale, _]| scale);
    let scales = quantized.scales().into_iter();
    scales.flat_map(|it| bad(l.constant(node, it)?, Some(it) == divider)).next()
}

fn bad(scales: &Tensor, divides: bool) -> Option<Found> {
    // Weights that are still to be solved have no scales yet.
    if scales.quantized().is_some() || !scales.dtype.is_float() {
        return None;
    }
    let values = scales.to_f32().ok()?;
    let count = |is: fn(&f32) -> bool| values.iter().filter(|it| is(it)).count();
    let (nan, infinite) = (count(|it| it.is_nan()), count(|it| it.is_infinite()));
    let zero = count(|it| *it == 0.0);
    let found = |severity, what, hint| Found { severity, what, factor: None, hint, fix: None };
    if nan + infinite > 0 {
        let what = if nan > 0 { "NaN" } else { "infinite" };
        let hint = "every output it reaches is NaN; quantize the float model again";
        return Some(found(Severity::Broken, format!("a scale is {what}"), hint));
    }
    if zero > 0 && divides {
        let hint = "dividing by it gives NaN or Inf; calibrate again with data that reach it";
        return Some(found(Severity::Broken, "a scale that divides is zero".into(), hint));
    }
    if zero == values.len() && zero > 0 {
        let hint = "all its values are zero; check the weight it was made from";
        return Some(found(Severity::Advice, "every scale is zero".into(), hint));
    }
    None
}
