//! Gelu in single operators becomes one node.
//!
//! ```text
//! x · (1 + Erf(x / √2)) · ½                                 →      Gelu(x)
//! x · (1 + Tanh(√(2/π) · (x + 0.044715 x³))) · ½            →      Gelu(x, approximate = tanh)
//! ```
//!
//! `Gelu` is standard from opset 20 on; before, the nodes are ONNX Runtime's `Gelu` and `FastGelu`.
//! (Hendrycks and Gimpel, <https://arxiv.org/abs/1606.08415>.)

use super::{of_type, one_of, pair, scalar, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match, tensor::DType};

pub(super) const FUSE_GELU: Rule = Rule {
    name: "fuse-gelu",
    help: "make one Gelu of the error function or the hyperbolic tangent around its input",
    root: "Mul",
    apply,
};

fn apply(m: &Model, mul: NodeId) -> Result<Patch, NoMatch> {
    // The three factors come in any order and association.
    let (mut factors, mut half) = (Vec::new(), 1.0);
    collect(m, m.node(mul).output(), 2, &mut factors, &mut half)?;
    let (a, b) = match factors[..] {
        [a, b] => (a, b),
        _ => return Err(no_match!("this is no product of two values and a constant")),
    };
    let ((x, kind), other) = one_of(m, a, b, |it| one_plus(m, it))?;
    if x != other || !near(half, 0.5) {
        return Err(no_match!("the gate is not of the value that it multiplies, or not halved"));
    }
    // Of float16 too: ONNX Runtime casts around the one kernel it has.
    of_type(m, x, &[DType::F32, DType::F16])?;
    let (op, attrs) = match (kind, m.opset("") >= 20) {
        (Kind::Erf, true) => ("Gelu", Attrs::default()),
        (Kind::Tanh, true) => ("Gelu", Attrs::default().with("approximate", "tanh")),
        (Kind::Erf, false) => ("com.microsoft.Gelu", Attrs::default()),
        (Kind::Tanh, false) => ("com.microsoft.FastGelu", Attrs::default()),
    };
    let mut patch = Patch::before(mul);
    let y = patch.node(&stem(m, mul), op, [x.into()], attrs);
    Ok(patch.replace(m.node(mul).output(), y))
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Erf,
    Tanh,
}

/// The values that a tree of `Mul` multiplies, and the product of its constants.
fn collect(
    m: &Model,
    it: ValueId,
    depth: usize,
    factors: &mut Vec<ValueId>,
    constant: &mut f32,
) -> Result<(), NoMatch> {
    if let Ok(by) = scalar(m, it) {
        *constant *= by;
        return Ok(());
    }
    match m.producer(it, "Mul") {
        Ok(mul) if depth > 0 => {
            for index in 0..2 {
                collect(m, m.operand(mul, index)?, depth - 1, factors, constant)?;
            }
        }
        _ => factors.push(it),
    }
    Ok(())
}

/// The `x` of `1 + Erf(x / √2)` or of `1 + Tanh(…)`.
fn one_plus(m: &Model, it: ValueId) -> Result<(ValueId, Kind), NoMatch> {
    let add = m.producer(it, "Add")?;
    let (a, b) = pair(m, add)?;
    let (x, one) = match one_of(m, a, b, |it| m.producer(it, "Erf")) {
        Ok((erf, one)) => ((over_root_two(m, m.operand(erf, 0)?)?, Kind::Erf), one),
        Err(reason) => {
            let tanh = one_of(m, a, b, |it| m.producer(it, "Tanh")).map_err(|_| reason)?;
            ((cubic(m, m.operand(tanh.0, 0)?)?, Kind::Tanh), tanh.1)
        }
    };
    match scalar(m, one)? {
        1.0 => Ok(x),
        other => Err(no_match!("{other} is added to the gate, not 1")),
    }
}

fn over_root_two(m: &Model, it: ValueId) -> Result<ValueId, NoMatch> {
    let (x, by) = match m.producer(it, "Div") {
        Ok(div) => (m.operand(div, 0)?, 1.0 / scalar(m, m.operand(div, 1)?)?),
        Err(_) => {
            let mul = m.producer(it, "Mul")?;
            let (a, b) = pair(m, mul)?;
            let (by, x) = one_of(m, a, b, |it| scalar(m, it))?;
            (x, by)
        }
    };
    match near(by, std::f32::consts::FRAC_1_SQRT_2) {
        true => Ok(x),
        false => Err(no_match!("the error function is of {by} times the value, not 1/√2")),
    }
}

/// The `x` of `√(2/π) · (x + 0.044715 x³)`.
fn cubic(m: &Model, it: ValueId) -> Result<ValueId, NoMatch> {
    let mul = m.producer(it, "Mul")?;
    let (a, b) = pair(m, mul)?;
    let (by, sum) = one_of(m, a, b, |it| scalar(m, it))?;
    if !near(by, (2.0 / std::f32::consts::PI).sqrt()) {
        return Err(no_match!("the hyperbolic tangent is of {by} times a sum, not √(2/π)"));
    }
    let add = m.producer(sum, "Add")?;
    let (a, b) = pair(m, add)?;
    let is_cube = |it, x| cube(m, it).is_ok_and(|(of, by)| of == x && near(by, 0.044_715));
    match (is_cube(b, a), is_cube(a, b)) {
        (true, _) => Ok(a),
        (_, true) => Ok(b),
        _ => Err(no_match!("`{}` is not x + 0.044715 x³", m.value(sum).name)),
    }
}

/// `x` and `c` of `c x³`.
fn cube(m: &Model, it: ValueId) -> Result<(ValueId, f32), NoMatch> {
    let (mut factors, mut by) = (Vec::new(), 1.0);
    collect(m, it, 3, &mut factors, &mut by)?;
    if let [pow] = factors[..]
        && let Ok(pow) = m.producer(pow, "Pow")
        && scalar(m, m.operand(pow, 1)?)? == 3.0
    {
        return Ok((m.operand(pow, 0)?, by));
    }
    match factors[..] {
        [a, b, c] if a == b && b == c => Ok((a, by)),
        _ => Err(no_match!("`{}` is no cube", m.value(it).name)),
    }
}

/// Exporters write constants with few digits.
fn near(a: f32, b: f32) -> bool {
    (a - b).abs() < 1e-4 * b.abs()
}
