//! The piecewise approximation of swish becomes one node.
//!
//! ```text
//! x · Clip(x + 3, 0, 6) / 6                         →      HardSwish(x)
//! x · HardSigmoid(x, alpha = 1/6, beta = ½)         →      HardSwish(x)
//! ```
//!
//! ONNX Runtime 1.31 computes it inside the convolution before it (1.1 times the speed of a
//! PP-OCRv4 detector as a whole). (Howard et al., <https://arxiv.org/abs/1905.02244>.)

use super::{of_type, one_of, pair, scalar, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match, tensor::DType};

pub(super) const FUSE_HARDSWISH: Rule = Rule {
    name: "fuse-hardswish",
    help: "make one HardSwish of a value times its piecewise sigmoid",
    root: "Mul",
    apply,
};

pub(super) const FUSE_HARDSWISH_DIV: Rule = Rule {
    name: "fuse-hardswish-div",
    help: "make one HardSwish of a value times its piecewise sigmoid, divided last",
    root: "Div",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let x = hard_swish(m, node)?;
    if m.opset("") < 14 {
        return Err(no_match!("HardSwish is standard from opset 14 on"));
    }
    of_type(m, x, &[DType::F32, DType::F16])?;
    let mut patch = Patch::before(node);
    let y = patch.node(&stem(m, node), "HardSwish", [x.into()], Attrs::default());
    Ok(patch.replace(m.node(node).output(), y))
}

/// The `x` whose `HardSwish` a `Mul` or `Div` is, in any operator set.
pub(crate) fn hard_swish(m: &Model, node: NodeId) -> Result<ValueId, NoMatch> {
    let it = m.node(node);
    if !(it.op.is("Mul") || it.op.is("Div")) {
        return Err(no_match!("{} is no product", it.op));
    }
    let (product, by) = times(m, it.output());
    if by != 1.0 {
        m.only_use(product)?;
    }
    let (a, b) = pair(m, m.producer(product, "Mul")?)?;
    let ((gate, inner), other) = one_of(m, a, b, |it| gate(m, it))?;
    let (x, outer) = if other == gate { (other, 1.0) } else { times(m, other) };
    if x != gate {
        return Err(no_match!("the gate is of another value"));
    }
    match near(by * inner * outer, 1.0) {
        true => Ok(x),
        false => Err(no_match!("the product is {} times HardSwish", by * inner * outer)),
    }
}

/// `x` and `c`, if `value` is `c` times the hard sigmoid of `x`.
fn gate(m: &Model, value: ValueId) -> Result<(ValueId, f32), NoMatch> {
    let (it, by) = times(m, value);
    if let Ok(hard) = m.producer(it, "HardSigmoid") {
        m.only_use(value)?;
        let (alpha, beta) = (m.float_attr(hard, "alpha", 0.2), m.float_attr(hard, "beta", 0.5));
        if !near(alpha, 1.0 / 6.0) || !near(beta, 0.5) {
            return Err(no_match!("HardSigmoid has the slope {alpha} around {beta}"));
        }
        return Ok((m.operand(hard, 0)?, by));
    }
    let clip = m.producer(it, "Clip")?;
    m.only_use(value)?;
    let bounds = (bound(m, clip, 1, "min")?, bound(m, clip, 2, "max")?);
    if bounds != (0.0, 6.0) {
        return Err(no_match!("Clip is to {bounds:?}, not (0, 6)"));
    }
    let (a, b) = pair(m, m.producer(m.operand(clip, 0)?, "Add")?)?;
    match one_of(m, a, b, |it| scalar(m, it))? {
        (3.0, x) => Ok((x, 6.0 * by)),
        (other, _) => Err(no_match!("{other} is added before Clip, not 3")),
    }
}

/// A bound of `Clip`: an input, or an attribute before opset 11.
fn bound(m: &Model, clip: NodeId, index: usize, name: &str) -> Result<f32, NoMatch> {
    match m.operand(clip, index) {
        Ok(it) => scalar(m, it),
        Err(_) => Ok(m.float_attr(clip, name, f32::NAN)),
    }
}

/// `x` and `c`, if `value` is `c · x` or `x / (1 / c)`; otherwise itself and 1.
fn times(m: &Model, value: ValueId) -> (ValueId, f32) {
    let find = || -> Result<_, NoMatch> {
        if let Ok(div) = m.producer(value, "Div") {
            let (x, by) = pair(m, div)?;
            return Ok((x, 1.0 / scalar(m, by)?));
        }
        let (a, b) = pair(m, m.producer(value, "Mul")?)?;
        one_of(m, a, b, |it| scalar(m, it)).map(|(by, x)| (x, by))
    };
    find().unwrap_or((value, 1.0))
}

/// Exporters write constants with few digits.
fn near(a: f32, b: f32) -> bool {
    (a - b).abs() < 1e-5 * b.abs()
}
