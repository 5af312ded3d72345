//! Rotation of what attention weighs, head by head.
//!
//! Attention mixes tokens, never the channels of a value head. So `v·R` for one orthogonal `R` of a head's
//! size makes each head of the result `·R` too, and `Rᵀ` before the product that reads it takes that back:
//! nothing is computed that was not before. After Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in
//! Rotated LLMs", 2024 (there R2). A cache that keeps values would show them rotated, so those stay.

use super::{
    super::{
        fold::{scalable, values_of_attention},
        scratch::{Place, Scratch},
    },
    matrix::Rotation,
    stream::Spot,
};
use onnxq_ir::{
    Def, Model, NoMatch, NodeId, Patch, ValueId, no_match,
    ops::Traits,
    tensor::{Tensor, TensorError},
};

/// Value heads that can be rotated, and the product that takes it back.
struct Heads {
    /// Constants whose last axis are the channels of the value heads: a weight, biases.
    writers: Vec<Spot>,
    reader: NodeId,
    /// Channels of a head.
    size: usize,
}

/// Rotates the values of every attention that keeps none. Says how many, `None` without attention.
pub(super) fn rotate(m: &mut Model, seed: u64) -> Result<Option<String>, TensorError> {
    let (mut found, mut missed) = (Vec::new(), Vec::new());
    for node in m.nodes_of(m.main).filter(|it| reads_attention(m, *it)) {
        match heads(m, node) {
            Ok(it) => found.push(it),
            Err(reason) => missed.push(reason),
        }
    }
    let mut scratch = Scratch::new()?;
    let mut places: Vec<(Spot, Place)> = Vec::new();
    for it in &found {
        let q = Rotation::new(it.size, seed, false);
        let turn = |row: &mut [f64]| row.chunks_exact_mut(it.size).for_each(|head| q.rotate(head));
        for &spot in &it.writers {
            let tensor = constant(m, spot);
            let width = *tensor.shape.last().expect("it was checked");
            let rows = tensor.reshaped(vec![tensor.numel() / width, width]);
            let place = scratch.changed(&rows, turn)?.shaped(tensor.shape.clone());
            places.push((spot, place));
        }
        let spot = Spot { node: it.reader, index: 1 };
        let place = scratch.changed(&constant(m, spot).transposed(), turn)?.transposed();
        places.push((spot, place));
    }
    let bytes = scratch.map()?;
    for (spot, place) in &places {
        let name = m.operand(spot.node, spot.index).map(|it| m.value(it).name.clone());
        let mut patch = Patch::before(spot.node);
        let new = patch.constant(&name.expect("it was checked"), place.tensor(&bytes));
        patch.rewire(spot.node, spot.index, new).apply(m);
    }
    Ok(describe(found.len(), missed.first()))
}

fn describe(rotated: usize, missed: Option<&NoMatch>) -> Option<String> {
    let noun = if rotated == 1 { "attention" } else { "attentions" };
    match (rotated, missed) {
        (0, reason) => reason.map(|it| format!("the values of attention stay: {it}")),
        _ => Some(format!("rotated the values of {rotated} {noun}")),
    }
}

/// Whether a product with a constant reads what attention computes, or looks like it.
fn reads_attention(m: &Model, node: NodeId) -> bool {
    let input = || m.operand(node, 0).ok();
    let is_site = m.node(node).op.is("MatMul")
        && m.operand(node, 1).is_ok_and(|it| m.constant(it).is_ok_and(|it| it.shape.len() == 2));
    is_site && input().is_some_and(|it| m.producer(it, "Attention").is_ok() || is_merge(m, it))
}

/// `Reshape(Transpose(MatMul))`: heads that are merged again.
fn is_merge(m: &Model, value: ValueId) -> bool {
    let first = |node| m.operand(node, 0);
    let merged = m.producer(value, "Reshape").and_then(first);
    let context = merged.and_then(|it| m.producer(it, "Transpose")).and_then(first);
    context.is_ok_and(|it| m.producer(it, "MatMul").is_ok())
}

fn heads(m: &Model, reader: NodeId) -> Result<Heads, NoMatch> {
    let (value, ties) = values_of_attention(m, reader)?;
    let mut writers = Vec::new();
    linear(m, value, ties.sources(), &mut writers)?;
    let weight = m.operand(reader, 1)?;
    scalable(m, weight, m.constant(weight)?)?;
    Ok(Heads { writers, reader, size: ties.size })
}

/// The constants of `x·w + b`, whose last axis has `k` channels.
fn linear(m: &Model, value: ValueId, k: usize, spots: &mut Vec<Spot>) -> Result<(), NoMatch> {
    let name = &m.value(value).name;
    if let Ok(node) = m.producer(value, "MatMul") {
        return writer(m, Spot { node, index: 1 }, k, spots);
    }
    let node = match m.value(value).def {
        Def::Node(node) if m.node(node).op.has(Traits::ADDITIVE) => node,
        _ => return Err(no_match!("`{name}` is no product, and no sum of one and a bias")),
    };
    for index in 0..m.node(node).inputs.len() {
        let term = m.operand(node, index)?;
        match m.constant(term) {
            Ok(_) => writer(m, Spot { node, index }, k, spots)?,
            Err(_) => {
                m.only_use(term)?;
                linear(m, term, k, spots)?;
            }
        }
    }
    Ok(())
}

fn writer(m: &Model, spot: Spot, k: usize, spots: &mut Vec<Spot>) -> Result<(), NoMatch> {
    let value = m.operand(spot.node, spot.index)?;
    let tensor = m.constant(value)?;
    scalable(m, value, tensor)?;
    if tensor.shape.last() != Some(&k) {
        let name = &m.value(value).name;
        return Err(no_match!("`{name}` ({tensor:?}) has not {k} columns"));
    }
    spots.push(spot);
    Ok(())
}

fn constant(m: &Model, spot: Spot) -> &Tensor {
    let value = m.operand(spot.node, spot.index);
    value.and_then(|it| m.constant(it)).expect("it was checked")
}
