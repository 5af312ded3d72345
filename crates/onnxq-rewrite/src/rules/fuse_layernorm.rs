//! A layer norm in single operators becomes one `LayerNormalization`.
//!
//! ```text
//! d = Sub(x, ReduceMean(x, -1))
//! Add(Mul(Div(d, Sqrt(Add(ReduceMean(Pow(d, 2), -1), ε))), s), b)     →     LayerNormalization(x, s, b)
//! ```

use super::{fuse_rmsnorm::squared, last_axis, one_of, pair, scalar, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match};

pub(super) const FUSE_LAYERNORM: Rule = Rule {
    name: "fuse-layernorm",
    help: "make one LayerNormalization of a layer norm in single operators",
    root: "Add",
    apply,
};

fn apply(m: &Model, add: NodeId) -> Result<Patch, NoMatch> {
    let (a, b) = pair(m, add)?;
    let ((x, epsilon, scale), bias) = one_of(m, a, b, |it| scaled(m, it))?;
    if m.opset("") < 17 {
        return Err(no_match!(
            "LayerNormalization needs opset 17, the model has {} (convert --opset 17)",
            m.opset("")
        ));
    }
    let Some(width) = m.shape(x)?.last().and_then(|it| it.fixed()) else {
        return Err(no_match!("the width of `{}` is not known", m.value(x).name));
    };
    for it in [scale, bias] {
        let given = m.shape(it)?;
        if given.len() != 1 || given[0].fixed() != Some(width) || m.dtype(it) != m.dtype(x) {
            let name = &m.value(it).name;
            return Err(no_match!("`{name}` is no parameter for each of {width} elements"));
        }
    }
    let attrs = Attrs::default().with("axis", -1i64).with("epsilon", epsilon);
    let mut patch = Patch::before(add);
    let inputs = [x.into(), scale.into(), bias.into()];
    let y = patch.node(&stem(m, add), "LayerNormalization", inputs, attrs);
    Ok(patch.replace(m.node(add).output(), y))
}

/// `y = (x - mean) / √(variance + ε) · scale`: input, `ε`, scale.
fn scaled(m: &Model, y: ValueId) -> Result<(ValueId, f32, ValueId), NoMatch> {
    let mul = m.producer(y, "Mul")?;
    let (a, b) = pair(m, mul)?;
    let ((x, epsilon), scale) = one_of(m, a, b, |it| normalized(m, it))?;
    Ok((x, epsilon, scale))
}

fn normalized(m: &Model, y: ValueId) -> Result<(ValueId, f32), NoMatch> {
    let div = m.producer(y, "Div")?;
    let (centered, root) = (m.operand(div, 0)?, m.producer(m.operand(div, 1)?, "Sqrt")?);
    let add = m.producer(m.operand(root, 0)?, "Add")?;
    let (a, b) = pair(m, add)?;
    let (mean, epsilon) = one_of(m, a, b, |it| m.producer(it, "ReduceMean"))?;
    last_axis(m, mean)?;
    let square = m.operand(mean, 0)?;
    // Some exporters center twice.
    let twin = |it| center(m, it).and_then(|x| Ok((x == center(m, centered)?).then_some(it)));
    let by = match m.producer(square, "Pow") {
        Ok(pow) => twin(m.operand(pow, 0)?)?,
        Err(_) => None,
    };
    squared(m, square, by.unwrap_or(centered))?;
    Ok((center(m, centered)?, scalar(m, epsilon)?))
}

/// The `x` of `x - mean(x)`.
fn center(m: &Model, it: ValueId) -> Result<ValueId, NoMatch> {
    let sub = m.producer(it, "Sub")?;
    let x = m.operand(sub, 0)?;
    let mean = m.producer(m.operand(sub, 1)?, "ReduceMean")?;
    last_axis(m, mean)?;
    if m.operand(mean, 0)? == x {
        return Ok(x);
    }
    Err(no_match!("`{}` subtracts the mean of another value", m.value(it).name))
}
