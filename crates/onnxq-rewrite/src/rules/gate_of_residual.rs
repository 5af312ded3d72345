//! A residual around a gate moves into the gate, which has one number for each channel.
//!
//! ```text
//! x + x · s      →      x · (s + 1)      for s of the shape [N, C, 1, …]
//! ```
//!
//! One pass over `x` less. (Squeeze and excitation, <https://arxiv.org/abs/1709.01507>, as the neck
//! of a PP-OCR detector has it.)

use super::{of_type, one_of, pair, stem};
use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, ValueId, no_match,
    tensor::{DType, Dim, Tensor},
};

pub(super) const GATE_OF_RESIDUAL: Rule = Rule {
    name: "gate-of-residual",
    help: "make x · (s + 1) of x + x · s, where s has one number for each channel",
    root: "Add",
    apply,
};

fn apply(m: &Model, add: NodeId) -> Result<Patch, NoMatch> {
    let (a, b) = pair(m, add)?;
    let (product, x) = one_of(m, a, b, |it| {
        m.only_use(it)?;
        m.producer(it, "Mul")
    })?;
    let (a, b) = pair(m, product)?;
    let gate = match (a == x, b == x) {
        (true, false) => b,
        (false, true) => a,
        _ => return Err(no_match!("the product is not of `{}` and a gate", m.value(x).name)),
    };
    of_type(m, x, &[DType::F32])?;
    small(m, gate)?;
    let mut patch = Patch::before(add);
    let one = patch.constant("one", Tensor::scalar(1.0));
    let shifted = patch.step(
        &format!("{}.1", m.value(gate).name),
        "Add",
        [gate.into(), one],
        Attrs::default(),
    );
    let y = patch.node(&stem(m, product), "Mul", [x.into(), shifted], Attrs::default());
    Ok(patch.replace(m.node(add).output(), y))
}

/// One number for each channel: all dimensions of space are 1.
fn small(m: &Model, gate: ValueId) -> Result<(), NoMatch> {
    match &m.shape(gate)?[..] {
        [_, _, space @ ..] if !space.is_empty() && space.iter().all(|it| *it == Dim::Fixed(1)) => {
            Ok(())
        }
        _ => Err(no_match!("`{}` is not one number for each channel", m.value(gate).name)),
    }
}
