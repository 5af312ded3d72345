//! A narrower feed-forward block: some of its hidden channels go, with their columns of the products
//! before and their rows of the product after.
//!
//! ```text
//! down(act(gate(x)) · up(x))      fc2(act(fc1(x) + b1)) + b2      down(act(g) · u)  for g, u = split(gate_up(x))
//! ```
//!
//! Between the products each hidden channel must go its own way, so that it can be taken out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Layer, PruneError, Step, flow::Flow, layers};
use onnxq_ir::{
    Model, NoMatch, NodeId, User, ValueId, infer, no_match,
    ops::{Layout, Traits},
    tensor::Dim,
};

/// The feed-forward block of a layer.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// Hidden channels.
    pub width: usize,
    /// What the last product reads: one number for each hidden channel, the last axis.
    pub hidden: ValueId,
    /// The last product.
    pub down: NodeId,
    /// The weight of the last product, and the axis of it that is the hidden channels.
    pub weight: (ValueId, usize),
    /// Constants with hidden channels along an axis, by the node and its input.
    pub(super) cuts: Vec<Cut>,
    /// Values with hidden channels along the last axis, and how many times all of them.
    pub(super) values: BTreeMap<ValueId, usize>,
    /// Nodes that are told how large their parts are.
    pub(super) splits: Vec<NodeId>,
}

#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub node: NodeId,
    pub input: usize,
    pub axis: usize,
    /// How often all hidden channels lie along the axis.
    pub parts: usize,
}

/// The feed-forward block of a layer that [`layers`] found in this very model.
///
/// # Errors
/// E412 says where hidden channels mix.
pub fn feed_forward(model: &Model, layer: usize) -> Result<FeedForward, PruneError> {
    let all = layers(model)?;
    let found = all.get(layer).ok_or(PruneError::NoLayer { layer, count: all.len() })?;
    let mut typed = model.clone();
    infer::run(&mut typed);
    block(&Flow::of(&typed), found)
        .map_err(|it| PruneError::Width { layer, reason: it.0.into_owned() })
}

fn block(flow: &Flow, layer: &Layer) -> Result<FeedForward, NoMatch> {
    let (step, term) = own_term(flow, layer)?;
    let region = flow.between(step.from, term);
    let down = *region
        .iter()
        .rfind(|it| flow.multiplies(**it))
        .ok_or_else(|| no_match!("it has no product"))?;
    let (weight, axis) = weight(flow, down)?;
    let width = rows(flow, weight, 1 - axis)?;
    let hidden = flow.m.operand(down, 0)?;
    let mut block = FeedForward {
        width,
        hidden,
        down,
        weight: (weight, 1 - axis),
        cuts: vec![Cut { node: down, input: 1, axis: 1 - axis, parts: 1 }],
        values: BTreeMap::new(),
        splits: Vec::new(),
    };
    let mut inside = BTreeSet::from([down]);
    gather(flow, &mut block, &mut inside, hidden)?;
    for value in block.values.keys() {
        let outside = flow.m.value(*value).uses.iter().any(|it| match it.user {
            User::Node(node) => !inside.contains(&node),
            _ => true,
        });
        if outside {
            return Err(no_match!("`{}` has other uses", flow.m.value(*value).name));
        }
    }
    Ok(block)
}

/// What the feed-forward block adds to the stream: the term without attention.
fn own_term<'a>(flow: &Flow, layer: &'a Layer) -> Result<(&'a Step, ValueId), NoMatch> {
    let mut terms = layer.steps.iter().flat_map(|it| it.terms.iter().map(move |term| (it, *term)));
    terms
        .rfind(|(step, term)| !flow.attends(&flow.between(step.from, *term)))
        .ok_or_else(|| no_match!("all that it adds to the stream comes from attention"))
}

/// The constant weight of a product, and its axis of outputs.
fn weight(flow: &Flow, node: NodeId) -> Result<(ValueId, usize), NoMatch> {
    let op = &flow.m.node(node).op;
    let axis = match op.float_layout() {
        Some(Layout::MatMul) => 1,
        Some(Layout::Gemm) if flow.m.int_attr(node, "transA", 0) == 0 => {
            usize::from(flow.m.int_attr(node, "transB", 0) == 0)
        }
        _ => return Err(no_match!("{op} is no product of a float matrix")),
    };
    let weight = flow.m.operand(node, 1)?;
    match flow.m.constant(weight)?.shape.len() {
        2 => Ok((weight, axis)),
        _ => Err(no_match!("`{}` is no matrix", flow.m.value(weight).name)),
    }
}

fn rows(flow: &Flow, weight: ValueId, axis: usize) -> Result<usize, NoMatch> {
    Ok(flow.m.constant(weight)?.shape[axis])
}

/// Follows the hidden channels back to the products that make them.
fn gather(
    flow: &Flow,
    block: &mut FeedForward,
    inside: &mut BTreeSet<NodeId>,
    hidden: ValueId,
) -> Result<(), NoMatch> {
    let mut work = vec![(hidden, 1)];
    while let Some((value, parts)) = work.pop() {
        match block.values.insert(value, parts) {
            Some(before) if before == parts => continue,
            Some(_) => {
                return Err(no_match!("`{}` is split in two ways", flow.m.value(value).name));
            }
            None => {}
        }
        let name = &flow.m.value(value).name;
        let node = flow.producer(value).ok_or_else(|| no_match!("`{name}` is not computed"))?;
        let is_new = inside.insert(node);
        if flow.multiplies(node) {
            source(flow, block, node, parts)?;
        } else if flow.m.node(node).op.is("Split") && parts == 1 {
            work.push(split(flow, block, node)?);
        } else if is_new {
            work.extend(elementwise(flow, block, node, parts)?.into_iter().map(|it| (it, parts)));
        }
    }
    Ok(())
}

/// A product that makes hidden channels: its columns are theirs, and those of its bias.
fn source(flow: &Flow, block: &mut FeedForward, node: NodeId, parts: usize) -> Result<(), NoMatch> {
    let (weight, axis) = weight(flow, node)?;
    if rows(flow, weight, axis)? != block.width * parts {
        let name = &flow.m.value(weight).name;
        return Err(no_match!("`{name}` does not have a column for each hidden channel"));
    }
    block.cuts.push(Cut { node, input: 1, axis, parts });
    if let Some(bias) = flow.m.node(node).inputs.get(2).copied().flatten() {
        block.cuts.extend(along(flow, (node, 2), bias, block.width, parts)?);
    }
    Ok(())
}

/// The cut of a constant that is one number for each channel; none if it is one for all.
fn along(
    flow: &Flow,
    (node, input): (NodeId, usize),
    value: ValueId,
    width: usize,
    parts: usize,
) -> Result<Option<Cut>, NoMatch> {
    let shape = &flow.m.constant(value)?.shape;
    match shape.last() {
        None | Some(1) => Ok(None),
        Some(last) if *last == width * parts => {
            Ok(Some(Cut { node, input, axis: shape.len() - 1, parts }))
        }
        Some(_) => {
            let name = &flow.m.value(value).name;
            Err(no_match!("`{name}` is not one number for each hidden channel"))
        }
    }
}

/// Equal parts of the last axis, each with all hidden channels.
fn split(flow: &Flow, block: &mut FeedForward, node: NodeId) -> Result<(ValueId, usize), NoMatch> {
    let (m, value) = (flow.m, flow.m.operand(node, 0)?);
    let rank = m.rank(value).ok_or_else(|| no_match!("the rank of a split is not known"))?;
    let axis = onnxq_ir::tensor::position(m.int_attr(node, "axis", 0), rank);
    let outputs = m.node(node).outputs.clone();
    let all_fit = outputs.iter().all(|it| {
        let last = m.shape(*it).ok().and_then(|it| it.last()?.fixed());
        last == Some(block.width)
    });
    if axis != Some(rank - 1) || !all_fit {
        return Err(no_match!("`{}` does not split into whole blocks", m.node_label(node)));
    }
    // A part that nobody reads shrinks, too.
    for it in &outputs {
        block.values.insert(*it, 1);
    }
    if !block.splits.contains(&node) {
        block.splits.push(node);
    }
    Ok((value, outputs.len()))
}

/// The operands of an elementwise node that have hidden channels.
fn elementwise(
    flow: &Flow,
    block: &mut FeedForward,
    node: NodeId,
    parts: usize,
) -> Result<Vec<ValueId>, NoMatch> {
    let (op, inputs) = (&flow.m.node(node).op, &flow.m.node(node).inputs);
    if !op.has(Traits::ELEMENTWISE) || flow.m.node(node).outputs.len() > 1 {
        return Err(no_match!("{op} `{}` mixes hidden channels", flow.m.node_label(node)));
    }
    let mut operands = Vec::new();
    for (input, value) in inputs.iter().enumerate() {
        let Some(value) = *value else { continue };
        if flow.is_constant(value) {
            block.cuts.extend(along(flow, (node, input), value, block.width, parts)?);
            continue;
        }
        match flow.m.shape(value)?.last().and_then(Dim::fixed) {
            Some(last) if last == block.width * parts => operands.push(value),
            _ => {
                let name = &flow.m.value(value).name;
                return Err(no_match!("`{name}` is not one number for each hidden channel"));
            }
        }
    }
    Ok(operands)
}
