//! Scales that no value can have.

use super::{
    super::look::{DEQUANTIZE, QUANTIZE},
    Found, Look, Severity,
};
use onnxq_ir::{NodeId, tensor::Tensor};

/// Operator, its scales, and which of them divide.
const SCALES: &[(&str, &[usize], &[usize])] = &[
    ("QLinearMatMul", &[1, 4, 6], &[6]),
    ("QLinearConv", &[1, 4, 6], &[6]),
    ("com.microsoft.DynamicQuantizeMatMul", &[2], &[]),
    ("com.microsoft.MatMulIntegerToFloat", &[2, 3], &[]),
    ("com.microsoft.MatMulNBits", &[2], &[]),
    ("com.microsoft.GatherBlockQuantized", &[2], &[]),
    ("com.microsoft.QGemm", &[1, 4, 7], &[7]),
];

pub fn scale(l: &Look, node: NodeId) -> Option<Found> {
    let (scales, dividers): (&[usize], &[usize]) = match SCALES.iter().find(|it| l.is(node, it.0)) {
        Some((_, scales, dividers)) => (scales, dividers),
        None if l.one_of(node, QUANTIZE).is_some() => (&[1], &[1]),
        None if l.one_of(node, DEQUANTIZE).is_some() => (&[1], &[]),
        None => return None,
    };
    scales.iter().find_map(|index| bad(l.constant(node, *index)?, dividers.contains(index)))
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
    let found = |severity, what, mend| Found { severity, what, factor: None, mend, fix: None };
    if nan + infinite > 0 {
        let what = if nan > 0 { "NaN" } else { "infinite" };
        let mend = "every output it reaches is NaN; quantize the float model again";
        return Some(found(Severity::Broken, format!("a scale is {what}"), mend));
    }
    if zero > 0 && divides {
        let mend = "dividing by it gives NaN or Inf; calibrate again with data that reach it";
        return Some(found(Severity::Broken, "a scale that divides is zero".into(), mend));
    }
    if zero == values.len() && zero > 0 {
        let mend = "all its values are zero; check the weight it was made from";
        return Some(found(Severity::Advice, "every scale is zero".into(), mend));
    }
    None
}
