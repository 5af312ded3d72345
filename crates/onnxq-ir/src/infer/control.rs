//! `If`, `Loop` and `Scan`: what their bodies get and what comes out.

use super::{
    call::{Call, Types, position, tensor},
    dims,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

/// Types of the inputs of a body, where they hold in every iteration.
pub(super) fn body_inputs(c: &Call, attr: &str) -> Types {
    match (&*c.node.op.name, attr) {
        _ if !c.node.op.domain.is_empty() => Vec::new(),
        ("Loop", "body") => {
            let counter = [Some(tensor(DType::I64, None)), Some(tensor(DType::Bool, None))];
            counter.into_iter().chain((2..c.inputs()).map(|it| carried(c, it))).collect()
        }
        ("Scan", "body") => scan_body_inputs(c).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The shape may change from one iteration to the next.
fn carried(c: &Call, index: usize) -> Option<TensorType> {
    Some(tensor(c.dtype(index)?, None))
}

pub(super) fn if_(c: &Call) -> Types {
    let branches = c.body_outputs("then_branch").into_iter().zip(c.body_outputs("else_branch"));
    branches.map(|(a, b)| dims::common(&a?, &b?)).collect()
}

pub(super) fn loop_(c: &Call) -> Types {
    let states = c.inputs().saturating_sub(2);
    // The first output of the body is the condition.
    let body = c.body_outputs("body").into_iter().skip(1).enumerate();
    body.map(|(index, body)| {
        let body = body?;
        if index < states {
            return dims::common(&c.ty(index + 2)?, &body);
        }
        let stacked = |it: Shape| std::iter::once(Dim::Unknown).chain(it).collect();
        Some(tensor(body.dtype, body.shape.map(stacked)))
    })
    .collect()
}

/// The number of states; version 8 has other inputs and is left alone.
fn scan_states(c: &Call) -> Option<usize> {
    let scans = usize::try_from(c.int_attr("num_scan_inputs")?).ok()?;
    c.inputs().checked_sub(scans).filter(|_| c.opset() >= 9)
}

fn scan_body_inputs(c: &Call) -> Option<Types> {
    let states = scan_states(c)?;
    let slice = |index: usize| {
        let mut ty = c.ty(index)?;
        if let Some(shape) = &mut ty.shape {
            shape.remove(scan_axis(c, "scan_input_axes", index - states, shape.len())?);
        }
        Some(ty)
    };
    let inputs = 0..c.inputs();
    Some(inputs.map(|it| if it < states { carried(c, it) } else { slice(it) }).collect())
}

pub(super) fn scan(c: &Call) -> Types {
    let Some(states) = scan_states(c) else { return Vec::new() };
    let length = || {
        let shape = c.shape(states)?;
        let axis = scan_axis(c, "scan_input_axes", 0, shape.len())?;
        shape.get(axis).cloned()
    };
    let body = c.body_outputs("body").into_iter().enumerate();
    body.map(|(index, body)| {
        let mut ty = body?;
        if index < states {
            return dims::common(&c.ty(index)?, &ty);
        }
        if let Some(shape) = &mut ty.shape {
            let axis = scan_axis(c, "scan_output_axes", index - states, shape.len() + 1)?;
            shape.insert(axis, length().unwrap_or(Dim::Unknown));
        }
        Some(ty)
    })
    .collect()
}

fn scan_axis(c: &Call, attr: &str, index: usize, rank: usize) -> Option<usize> {
    position(c.ints_attr(attr).and_then(|it| it.get(index).copied()).unwrap_or(0), rank)
}
