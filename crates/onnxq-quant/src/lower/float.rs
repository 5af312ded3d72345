//! Without quantization: float weights, computed when they are written, and no pairs around
//! activations.

use super::{
    Between, Convolutions, Form, PLAIN,
    emit::{Emit, only},
    main_nodes,
};
use crate::raise::{Kind, Site, Weights, constant, dequantize, optional, quantize, stem};
use onnxq_ir::{
    Attrs, Def, Model, NoMatch, NodeId, Patch, Ref, User, no_match,
    ops::{Set, Traits},
    tensor::{DType, Tensor, TensorError, from_f32, position},
};

pub const FLOAT: Form = Form {
    name: "float",
    help: "No quantization: weights in float again, activations as they were",
    lower,
    frees_activations: true,
    convolutions: Convolutions::Raise,
    between: Between::Float,
    finish: |m| Some(("DequantizeLinear of constants → float", dequantize_constants(m))),
    refuses,
    ..PLAIN
};

/// Quantized values that are left are no float.
fn refuses(m: &Model, node: NodeId) -> Option<NoMatch> {
    let op = &m.node(node).op;
    if op.name.ends_with("QuantizeLinear") {
        return Some(NoMatch("its quantized values are used by other operators".into()));
    }
    if !op.is("DequantizeLinear") {
        return None;
    }
    let constant = m.operand(node, 0).is_ok_and(|it| m.constant(it).is_ok());
    let whence = if constant { "lie in blocks" } else { "come from other operators" };
    Some(no_match!("its quantized values {whence}"))
}

fn lower(m: &Model, site: &Site, weights: &mut Weights) -> Result<Patch, NoMatch> {
    let mut to = Emit::new(m, site);
    let name = site.weight.stem.clone();
    match &site.kind {
        Kind::Product { x, bias } => {
            let x_float = to.float_x(x);
            let w = to.patch.constant(&name, weights.float(&site.weight, true));
            let y = to.main("MatMul", &[x_float, w], Attrs::default());
            let y = to.biased(y, x, *bias)?;
            Ok(to.finish(y))
        }
        Kind::Rows { indices } => {
            let table = to.patch.constant(&name, weights.float(&site.weight, false));
            let y = to.main("Gather", &[table, (*indices).into()], Attrs::default());
            Ok(to.finish(y))
        }
    }
}

/// Operators that move quantized values and leave them as they are.
const MOVES: Set =
    Set::of(Traits::COPY.union(Traits::REARRANGE).union(Traits::SELECT).union(Traits::VIEW))
        .plus(&["Expand"])
        .minus(&["GatherElements", "GatherND"]);

/// `DequantizeLinear(Transpose(quantized))` becomes `Transpose(DequantizeLinear(quantized))`, so
/// that pairs meet.
pub(super) fn dequantize_before_moves(m: &mut Model) {
    let mut work = main_nodes(m);
    while let Some(node) = work.pop() {
        if !m.is_live(node) {
            continue;
        }
        let Ok((patch, dq)) = before_move(m, node) else { continue };
        let dq = patch.apply(m).value(dq);
        if let Def::Node(next) = m.value(dq).def {
            work.push(next);
        }
    }
}

fn before_move(m: &Model, node: NodeId) -> Result<(Patch, Ref), NoMatch> {
    let output = m.node(node).output();
    dequantize(m, output)?;
    let (moved, scale) = (m.operand(node, 0)?, m.operand(node, 1)?);
    only(m, scale)?;
    let Def::Node(mover) = m.value(moved).def else {
        return Err(NoMatch("its quantized values are not computed".into()));
    };
    let it = m.node(mover);
    let quantized = m.operand(mover, 0)?;
    let known = it.op.is_in(MOVES) && m.constant(quantized).is_err();
    if !known || it.graph != m.node(node).graph {
        return Err(no_match!("its quantized values come from {}", it.op));
    }
    let mut patch = Patch::before(node);
    let mut inputs: Vec<Ref> = vec![quantized.into(), scale.into()];
    inputs.extend(optional(m, node, 2).map(Ref::from));
    let name = m.value(quantized).name.to_string();
    let dq = patch.step(&name, "DequantizeLinear", inputs, Attrs::default());
    let rest = it.inputs[1..].iter().map(|it| it.map_or(Ref::None, Ref::from));
    let inputs = std::iter::once(dq).chain(rest).collect::<Vec<Ref>>();
    let (op, name) = (it.op.to_string(), m.value(output).name.to_string());
    let y = patch.named(&it.name, &name, &op, inputs, it.attrs.clone());
    Ok((patch.replace(output, y), dq))
}

/// `DequantizeLinear(QuantizeLinear(x))` becomes `x`, and `Relu(x)` where the quantized values hold
/// no negative values: tools drop a `Relu` that quantization makes superfluous.
pub(super) fn remove_pairs(m: &mut Model) -> usize {
    let mut count = 0;
    for node in main_nodes(m) {
        if !m.is_live(node) {
            continue;
        }
        if let Ok(patch) = pair(m, node) {
            patch.apply(m);
            count += 1;
        }
    }
    count
}

fn pair(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let output = m.node(node).output();
    dequantize(m, output)?;
    let quantized = m.operand(node, 0)?;
    let patch = Patch::before(node);
    if let Ok(q) = m.producer(quantized, "DynamicQuantizeLinear") {
        return Ok(replace(m, node, patch, m.operand(q, 0)?.into()));
    }
    let q = quantize(m, quantized)?;
    let x = m.operand(q, 0)?;
    let (one, other) = (m.operand(q, 1)?, m.operand(node, 1)?);
    let same_type = m.dtype(x).is_none_or(|it| Some(it) == m.dtype(other));
    if only(m, one)? != only(m, other)? || !same_type {
        return Err(NoMatch("it is quantized again with another scale".into()));
    }
    let mut patch = patch;
    if !holds_negative(m, q)? && !is_positive(m, x) {
        let name = m.value(x).name.to_string();
        let x = patch.step(&format!("{name}_positive"), "Relu", [x.into()], Attrs::default());
        return Ok(replace(m, node, patch, x));
    }
    Ok(replace(m, node, patch, x.into()))
}

/// Outputs of the graph keep their name by an `Identity`, which `replace` adds.
fn replace(m: &Model, node: NodeId, patch: Patch, x: Ref) -> Patch {
    patch.replace(m.node(node).output(), x)
}

/// Whether the lowest quantized value stands for less than zero.
fn holds_negative(m: &Model, q: NodeId) -> Result<bool, NoMatch> {
    let Some(zero) = optional(m, q, 2) else { return Ok(false) };
    let tensor = m.constant(zero)?;
    let lowest = match tensor.dtype {
        DType::I8 => -128,
        DType::I16 => -32768,
        DType::U8 | DType::U16 => 0,
        it => return Err(no_match!("its quantized values are {it}")),
    };
    Ok(m.small_i64(zero)?.iter().any(|it| *it != lowest))
}

fn is_positive(m: &Model, x: onnxq_ir::ValueId) -> bool {
    match m.value(x).def {
        Def::Node(it) => m.node(it).op.has(Traits::NON_NEGATIVE),
        _ => false,
    }
}

/// `DequantizeLinear` of any other constant becomes the float constant, computed when written.
fn dequantize_constants(m: &mut Model) -> usize {
    let mut count = 0;
    for node in main_nodes(m) {
        if !m.is_live(node) {
            continue;
        }
        if let Ok(patch) = dequantized(m, node) {
            patch.apply(m);
            count += 1;
        }
    }
    count
}

fn dequantized(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let output = m.node(node).output();
    dequantize(m, output)?;
    if m.value(output).uses.iter().any(|it| matches!(it.user, User::Output(_))) {
        return Err(NoMatch("it is an output of the graph".into()));
    }
    let (quantized, _) = constant(m, m.operand(node, 0)?)?;
    if quantized.dtype.bits() < 8 {
        return Err(NoMatch("its quantized values are packed".into()));
    }
    let (scales, dtype) = constant(m, m.operand(node, 1)?)?;
    let zero_points = optional(m, node, 2).map(|it| constant(m, it)).transpose()?;
    if m.int_attr(node, "block_size", 0) != 0 {
        return Err(NoMatch("it is in blocks".into()));
    }
    let axis = m.int_attr(node, "axis", 1);
    let channels = scales.numel();
    let inner = match (channels, position(axis, quantized.shape.len())) {
        (1, _) => quantized.numel().max(1),
        (_, Some(axis)) if quantized.shape[axis] == channels => {
            quantized.shape[axis + 1..].iter().product::<usize>().max(1)
        }
        _ => return Err(NoMatch("its scales belong to no axis".into())),
    };
    if zero_points.as_ref().is_some_and(|it| it.0.numel() != channels) {
        return Err(NoMatch("its zero points belong to no axis".into()));
    }
    let zero_points = zero_points.map(|it| it.0);
    let name = m.value(m.operand(node, 0)?).name.to_string();
    let tensor = Tensor::lazy(dtype, quantized.shape.clone(), move || {
        let values = values(&quantized, &scales, zero_points.as_ref(), inner)?;
        Ok(from_f32(dtype, &values)?.into())
    });
    let mut patch = Patch::before(node);
    let constant = patch.constant(&stem(&name), tensor);
    Ok(patch.replace(output, constant))
}

fn values(
    quantized: &Tensor,
    scales: &Tensor,
    zero_points: Option<&Tensor>,
    inner: usize,
) -> Result<Vec<f32>, TensorError> {
    let scales = scales.to_f32()?;
    let channel = |i: usize| i / inner % scales.len();
    // Of eight bits, and its zero point is zero.
    if let Ok(floats) = quantized.to_f32() {
        let value = |(i, it): (usize, &f32)| it * scales[channel(i)];
        return Ok(floats.iter().enumerate().map(value).collect());
    }
    let quantized = quantized.to_i64()?;
    let zero_points = zero_points.map_or(Ok(vec![0; scales.len()]), Tensor::to_i64)?;
    let value = |(i, integer): (usize, &i64)| {
        (integer - zero_points[channel(i)]) as f32 * scales[channel(i)]
    };
    Ok(quantized.iter().enumerate().map(value).collect())
}
