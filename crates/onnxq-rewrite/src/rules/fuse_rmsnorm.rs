//! A root-mean-square norm in single operators becomes one node.
//!
//! ```text
//! Mul(s, Mul(x, Reciprocal(Sqrt(Add(ReduceMean(Pow(x, 2), -1), ε)))))      →      norm(x, s)
//! ```
//!
//! The node is `RMSNormalization` from opset 23 on, and before that ONNX Runtime's
//! `SimplifiedLayerNormalization`, which its own fusion makes too and which lives, by ONNX
//! Runtime's choice, in the standard domain. A detour through float32 (exporters add it to float16
//! models) goes into the norm, which computes in float32 anyway.

use super::{last_axis, of_type, one_of, pair, scalar, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match, tensor::DType};

pub(super) const FUSE_RMSNORM: Rule = Rule {
    name: "fuse-rmsnorm",
    help: "make one node of a root-mean-square norm in single operators",
    root: "Mul",
    apply,
};

fn apply(m: &Model, mul: NodeId) -> Result<Patch, NoMatch> {
    let (a, b) = pair(m, mul)?;
    let normalized = |y| Ok((widened(m, normalized(m, narrowed(m, y))?, y)?, y));
    let ((norm, _), scale) = one_of(m, a, b, normalized)?;
    of_type(m, norm.x, &[DType::F32, DType::F16, DType::F64])?;
    let Some(width) = m.shape(norm.x)?.last().and_then(|it| it.fixed()) else {
        return Err(no_match!("the width of `{}` is not known", m.value(norm.x).name));
    };
    let given = m.shape(scale)?;
    if given.len() != 1 || given[0].fixed() != Some(width) {
        let name = &m.value(scale).name;
        return Err(no_match!("`{name}` is no scale for each of {width} elements"));
    }
    if m.dtype(scale) != m.dtype(norm.x) {
        return Err(no_match!("scale and input are of different types"));
    }
    let standard = m.opset("") >= 23;
    let op = if standard { "RMSNormalization" } else { "SimplifiedLayerNormalization" };
    let attrs = Attrs::default().with("axis", -1i64).with("epsilon", norm.epsilon);
    let mut patch = Patch::before(mul);
    let y = patch.node(&stem(m, mul), op, [norm.x.into(), scale.into()], attrs);
    Ok(patch.replace(m.node(mul).output(), y))
}

struct Norm {
    x: ValueId,
    epsilon: f32,
}

/// The value before a cast to a narrower float, or the value itself.
fn narrowed(m: &Model, y: ValueId) -> ValueId {
    match m.producer(y, "Cast") {
        Ok(cast) if m.dtype(y).is_some_and(|it| it != DType::F32) => m.operand(cast, 0).ok(),
        _ => None,
    }
    .unwrap_or(y)
}

/// If `y` is in a narrower float than the norm computes in, so must its input have been.
fn widened(m: &Model, norm: Norm, y: ValueId) -> Result<Norm, NoMatch> {
    if m.dtype(norm.x) == m.dtype(y) {
        return Ok(norm);
    }
    let cast = m.producer(norm.x, "Cast")?;
    let x = m.operand(cast, 0)?;
    if m.dtype(x) != m.dtype(y) {
        return Err(no_match!("the norm changes the type of its input"));
    }
    Ok(Norm { x, ..norm })
}

/// `x / √(mean(x²) + ε)`.
fn normalized(m: &Model, y: ValueId) -> Result<Norm, NoMatch> {
    if let Ok(div) = m.producer(y, "Div") {
        let x = m.operand(div, 0)?;
        let root = m.producer(m.operand(div, 1)?, "Sqrt")?;
        return of(m, x, m.operand(root, 0)?);
    }
    let mul = m.producer(y, "Mul")?;
    let (a, b) = pair(m, mul)?;
    let (square, x) = one_of(m, a, b, |it| inverse_root(m, it))?;
    of(m, x, square)
}

/// The `v` of `1 / √v`.
fn inverse_root(m: &Model, it: ValueId) -> Result<ValueId, NoMatch> {
    if let Ok(pow) = m.producer(it, "Pow") {
        let exponent = scalar(m, m.operand(pow, 1)?)?;
        if exponent != -0.5 {
            return Err(no_match!("the exponent is {exponent}, not -0.5"));
        }
        return m.operand(pow, 0);
    }
    let root = match m.producer(it, "Reciprocal") {
        Ok(reciprocal) => m.operand(reciprocal, 0)?,
        Err(reason) => {
            let div = m.producer(it, "Div").map_err(|_| reason)?;
            if scalar(m, m.operand(div, 0)?)? != 1.0 {
                return Err(no_match!("the division is not of 1"));
            }
            m.operand(div, 1)?
        }
    };
    m.operand(m.producer(root, "Sqrt")?, 0)
}

/// `square` must be `mean(x²) + ε` over the last axis.
fn of(m: &Model, x: ValueId, square: ValueId) -> Result<Norm, NoMatch> {
    let add = m.producer(square, "Add")?;
    let (a, b) = pair(m, add)?;
    let (mean, epsilon) = one_of(m, a, b, |it| m.producer(it, "ReduceMean"))?;
    let epsilon = scalar(m, epsilon)?;
    last_axis(m, mean)?;
    squared(m, m.operand(mean, 0)?, x)?;
    Ok(Norm { x, epsilon })
}

/// `y` must be `x²`.
pub(super) fn squared(m: &Model, y: ValueId, x: ValueId) -> Result<(), NoMatch> {
    let by = match m.producer(y, "Pow") {
        Ok(pow) if scalar(m, m.operand(pow, 1)?)? == 2.0 => m.operand(pow, 0)?,
        Ok(_) => return Err(no_match!("`{}` is no square", m.value(y).name)),
        Err(_) => {
            let mul = m.producer(y, "Mul")?;
            let (a, b) = pair(m, mul)?;
            if a != b {
                return Err(no_match!("`{}` is no square", m.value(y).name));
            }
            a
        }
    };
    if by == x {
        Ok(())
    } else {
        Err(no_match!("`{}` is the square of another value", m.value(y).name))
    }
}
