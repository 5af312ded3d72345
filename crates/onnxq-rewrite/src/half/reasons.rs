//! Why nodes stay in float32.
//!
//! By default these do: operators whose results grow or shrink fast (powers, exponentials,
//! logarithms, sums of many, sines of positions and what leads to them), means of squares up to
//! their root, quantized operators, control flow, nodes whose constants are out of range, and
//! whatever has no such type in its operator set. A node between kept ones is kept too: two Casts
//! would cost more than it.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;

use super::{
    HalfError, Largest,
    values::{Fit, Narrowed},
};
use onnxq_ir::{
    Def, Model, NodeId, User, ValueId,
    ops::{Set, Traits},
    tensor::DType,
};

/// Operators that take the end of the range for infinity.
const MASKING: Set = Set::of(Traits::ARITHMETIC.union(Traits::BOUNDS).union(Traits::FILL))
    .plus(&["Where"])
    .minus(&["Div"]);

pub(super) type Reasons = BTreeMap<NodeId, String>;

/// The nodes that have to do with float32 and stay there.
pub(super) fn reasons(
    m: &Model,
    concerned: &BTreeSet<NodeId>,
    largest: &Largest,
    narrowed: &mut Narrowed,
) -> Result<Reasons, HalfError> {
    let dtype = narrowed.dtype();
    let mut reasons = Reasons::new();
    for node in m.nodes().into_iter().filter(|it| concerned.contains(it)) {
        if let Some(reason) = by_operator(m, node, dtype) {
            reasons.insert(node, reason);
        } else if let Some(reason) = by_range(m, node, largest, dtype) {
            reasons.insert(node, reason);
        } else if let Some(reason) = by_constants(m, node, narrowed)? {
            reasons.insert(node, reason);
        }
    }
    angles(m, &mut reasons);
    between(m, concerned, &mut reasons);
    roots(m, concerned, &mut reasons);
    Ok(reasons)
}

fn by_operator(m: &Model, node: NodeId, dtype: DType) -> Option<String> {
    let it = m.node(node);
    let unknown = |it: &ValueId| m.dtype(*it).is_none();
    if it.inputs.iter().flatten().any(unknown) || it.outputs.iter().any(|it| is_unknown(m, *it)) {
        return Some("not all types of its values are known".into());
    }
    if it.attrs.graphs().next().is_some() {
        return Some("its bodies state the types of what goes in and out".into());
    }
    if let Some(reason) = by_type(m, node, dtype) {
        return Some(reason);
    }
    if let Some(reason) = it.op.info().and_then(|it| it.narrow.risk) {
        return Some(reason.into());
    }
    if turns_a_factor(m, node) {
        return Some(
            "ONNX Runtime ends while it loads such a narrow Transpose before a MatMul".into(),
        );
    }
    (it.op.is("ReduceMean") && squares(m, node)).then(|| "means of squares overflow".into())
}

/// Whether a node moves the first of three axes of an operand of a `MatMul`. What ONNX Runtime 1.31 and
/// 1.32 make of it and the Cast that their float32 product needs crashes them; in float32 it does not.
fn turns_a_factor(m: &Model, node: NodeId) -> bool {
    let moves = |order: &[i64]| order == [1, 0, 2] || order == [1, 2, 0];
    let turns = m.node(node).op.is("Transpose") && m.ints_attr(node, "perm").is_some_and(moves);
    turns && is_factor(m, m.node(node).output(), 4)
}

fn is_factor(m: &Model, value: ValueId, depth: usize) -> bool {
    m.value(value).uses.iter().any(|reader| {
        let User::Node(node) = reader.user else { return false };
        let op = &m.node(node).op;
        let goes_on = depth > 0 && (op.has(Traits::CAST) || op.has(Traits::COPY));
        op.is("MatMul") || goes_on && is_factor(m, m.node(node).output(), depth - 1)
    })
}

/// An output that nobody names has no type either.
fn is_unknown(m: &Model, output: ValueId) -> bool {
    m.dtype(output).is_none() && !m.value(output).uses.is_empty()
}

/// Whether the operator set has the operator for the type.
fn by_type(m: &Model, node: NodeId, dtype: DType) -> Option<String> {
    let op = &m.node(node).op;
    let narrow = op.info().map(|it| it.narrow);
    let since = narrow.map_or(0, |it| if dtype == DType::F16 { it.float16 } else { it.bfloat16 });
    if !op.domain.is_empty() || op.is("SimplifiedLayerNormalization") {
        return (since == 0).then(|| format!("it is not known to take {dtype}"));
    }
    match m.opset("") {
        _ if since == 0 => Some(format!("it takes no {dtype}")),
        opset if opset < since => {
            Some(format!("it takes {dtype} from opset {since} on, the model has {opset}"))
        }
        _ => None,
    }
}

/// Whether a value that it reads or computes was measured to be infinite in the type.
fn by_range(m: &Model, node: NodeId, largest: &Largest, dtype: DType) -> Option<String> {
    let found = m.node(node).inputs.iter().flatten().chain(&m.node(node).outputs);
    let most = found.filter_map(|it| largest.get(it)).copied().fold(0.0, f32::max);
    let beyond = dtype == DType::F16 && most > f32::from(f16::MAX);
    beyond
        .then(|| format!("values of it reach {most:.3e} on the data, beyond the range of {dtype}"))
}

fn squares(m: &Model, node: NodeId) -> bool {
    let Ok(x) = m.operand(node, 0) else { return false };
    let Def::Node(square) = m.value(x).def else { return false };
    let op = &m.node(square).op;
    op.is("Pow") || op.is("Mul") && m.operand(square, 0) == m.operand(square, 1)
}

/// Whether a constant does not fit. Notes those that are clamped.
fn by_constants(
    m: &Model,
    node: NodeId,
    narrowed: &mut Narrowed,
) -> Result<Option<String>, HalfError> {
    let it = m.node(node);
    let masks = it.op.is_in(MASKING);
    let mut clamps = Vec::new();
    for (index, value) in it.inputs.iter().enumerate() {
        let Some(value) = *value else { continue };
        let is_weight = m.dtype(value) == Some(DType::F32) && m.constant(value).is_ok();
        if !is_weight || super::fixed_inputs(m, node).contains(&index) {
            continue;
        }
        match narrowed.fit(m, value, masks)? {
            Fit::Fits => {}
            Fit::Clamps { from, to } => clamps.push((value, from, to)),
            Fit::Not(reason) => return Ok(Some(reason)),
        }
    }
    for (value, from, to) in clamps {
        narrowed.clamp(m, value, from, to);
    }
    Ok(None)
}

/// What sines and cosines are taken of is computed in float32 from the start: positions above
/// 2048 are no float16, and above 256 no bfloat16.
fn angles(m: &Model, reasons: &mut Reasons) {
    let is_wave = |it: &NodeId| m.node(*it).op.is("Sin") || m.node(*it).op.is("Cos");
    let mut work: Vec<NodeId> = m.nodes().into_iter().filter(is_wave).collect();
    while let Some(node) = work.pop() {
        for value in m.node(node).inputs.iter().flatten() {
            let Def::Node(producer) = m.value(*value).def else { continue };
            if m.dtype(*value) != Some(DType::F32) || reasons.contains_key(&producer) {
                continue;
            }
            reasons.insert(producer, "angles are computed of it".into());
            work.push(producer);
        }
    }
}

/// Nodes whose float operands and users are all kept.
fn between(m: &Model, concerned: &BTreeSet<NodeId>, reasons: &mut Reasons) {
    for node in m.nodes() {
        if reasons.contains_key(&node) || !concerned.contains(&node) {
            continue;
        }
        let float = |it: &&ValueId| m.dtype(**it) == Some(DType::F32) && m.constant(**it).is_err();
        let is_kept = |it: &ValueId| match m.value(*it).def {
            Def::Node(producer) => reasons.contains_key(&producer),
            _ => false,
        };
        let it = m.node(node);
        let mut before = it.inputs.iter().flatten().filter(float).peekable();
        let all_before = before.peek().is_some() && before.all(is_kept);
        let mut after = it.outputs.iter().flat_map(|it| &m.value(*it).uses).peekable();
        let all_after = after.peek().is_some()
            && after.all(|it| match it.user {
                User::Node(user) => reasons.contains_key(&user) || is_root(m, user),
                _ => false,
            });
        if all_before && all_after {
            reasons.insert(node, "it is between nodes that stay in float32".into());
        }
    }
}

/// A mean of squares is too large to be cast before its root is taken.
fn roots(m: &Model, concerned: &BTreeSet<NodeId>, reasons: &mut Reasons) {
    for node in m.nodes() {
        let Ok(x) = m.operand(node, 0) else { continue };
        let Def::Node(producer) = m.value(x).def else { continue };
        if is_root(m, node) && concerned.contains(&node) && reasons.contains_key(&producer) {
            reasons.entry(node).or_insert_with(|| "its operand may be out of range".into());
        }
    }
}

/// The end of a norm: what follows multiplies by it.
fn is_root(m: &Model, node: NodeId) -> bool {
    ["Sqrt", "Reciprocal"].iter().any(|it| m.node(node).op.is(it))
}
