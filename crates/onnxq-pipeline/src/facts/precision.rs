//! What each weight of a model is stored in, and what it runs as.

use std::{cmp::Reverse, collections::BTreeMap};

use super::weights::{Part, part};
use crate::Execution;
use onnxq_ir::{
    Def, Model, NodeId, ValueId,
    ops::{Set, Traits},
};
use onnxq_quant::{ops, plan::PlanRow};
use onnxq_report::document::{Kept, PrecisionRow};
use onnxq_rewrite::lint::{
    ModelIndex,
    executed::{Declared, Executed, declared, is_in_float},
};

/// Every node with a weight, in the order of execution.
pub fn precision(m: &Model, execution: Option<&Execution>) -> Vec<PrecisionRow> {
    let look = ModelIndex::new(m);
    let mut quantized: BTreeMap<NodeId, Declared> = BTreeMap::new();
    for it in declared(&look) {
        quantized.entry(it.user).or_insert(it);
    }
    let mut executed: BTreeMap<&str, &Executed> = BTreeMap::new();
    if let Some(Execution::Checked { nodes, .. }) = execution {
        // The first of several rows wins.
        executed.extend(nodes.iter().rev().map(|it| (&*it.node, it)));
    }
    let row = |node: NodeId| -> Option<PrecisionRow> {
        let label = m.node_label(node);
        let (weight, declared) = match quantized.get(&node) {
            Some(it) => (it.weight, Some(it.text.clone())),
            None => (float_weight(m, node)?, None),
        };
        let tensor = m.constant(weight).ok()?;
        let part = part(m, weight, tensor);
        // What converts scales belongs to the node that they are for, which has a row.
        if part == Part::Side {
            return None;
        }
        let ran = executed.get(&*label).filter(|_| declared.is_some());
        let bytes = match declared {
            Some(_) => quantized_bytes(m, node),
            None => tensor.nbytes() as u64,
        };
        Some(PrecisionRow {
            op: m.node(node).op.to_string(),
            computes: Some(computes(part, declared.as_deref(), ran.copied())),
            precision: part.name().to_owned(),
            bytes,
            declared,
            executed: ran.map(|it| it.executed.clone()),
            differs: ran.and_then(|it| it.differs.clone()),
            node: label,
        })
    };
    m.nodes().into_iter().filter_map(row).collect()
}

/// What a node computes in: as it runs, or else as it is declared.
fn computes(part: Part, declared: Option<&str>, ran: Option<&Executed>) -> String {
    let text = ran.map(|it| &*it.executed).or(declared);
    let part = if text.is_some_and(is_in_float) { Part::Float } else { part };
    part.name().to_owned()
}

/// The weight of a node that computes in float; vectors are none.
fn float_weight(m: &Model, node: NodeId) -> Option<ValueId> {
    let known = ops::site(m, node)?.ok().map(|it| it.weight);
    let inputs = m.node(node).inputs.iter().flatten().copied();
    let matrices = inputs
        .filter(|it| m.constant(*it).is_ok_and(|it| it.shape.len() >= 2 && it.dtype.is_float()));
    known.or_else(|| matrices.max_by_key(|it| m.constant(*it).map_or(0, |it| it.numel())))
}

/// Quantized values, scales and zero points that a node reads, or that its result is scaled with.
fn quantized_bytes(m: &Model, node: NodeId) -> u64 {
    let mut found = Vec::new();
    m.node(node).inputs.iter().flatten().for_each(|it| behind(m, *it, 4, &mut found));
    // `MatMulInteger → Cast → Mul(·, Mul(activation's scale, weight's scale))`.
    let after = |node: NodeId| m.only_use(*m.node(node).outputs.first()?).ok();
    let scaled = after(node).filter(|it| m.node(*it).op.is("Cast")).and_then(after);
    let scaled = scaled.filter(|it| m.node(*it).op.is("Mul"));
    for value in scaled.into_iter().flat_map(|it| m.node(it).inputs.clone()).flatten() {
        match m.value(value).def {
            Def::Node(it) if m.node(it).op.is("Mul") => {
                let inputs = m.node(it).inputs.iter().flatten();
                inputs.for_each(|it| behind(m, *it, 0, &mut found));
            }
            _ => behind(m, value, 0, &mut found),
        }
    }
    found.sort_unstable();
    found.dedup();
    found.iter().filter_map(|it| Some(m.constant(*it).ok()?.nbytes() as u64)).sum()
}

/// Quantized values, scales and zero points that a value is made of, if nothing else is.
fn behind(m: &Model, value: ValueId, depth: usize, found: &mut Vec<ValueId>) {
    const MAKE: Set = Set::of(
        Traits::CAST.union(Traits::COPY).union(Traits::DEQUANTIZE).union(Traits::REARRANGE),
    )
    .plus(&["Mul"]);
    if let Ok(tensor) = m.constant(value) {
        let counts = matches!(part(m, value, tensor), Part::Quantized(_) | Part::Side);
        found.extend(counts.then_some(value));
        return;
    }
    let Def::Node(node) = m.value(value).def else { return };
    let it = m.node(node);
    if depth == 0 || !it.op.is_in(MAKE) {
        return;
    }
    let before = found.len();
    behind(m, it.inputs.first().copied().flatten().unwrap_or(value), depth - 1, found);
    // Scales of activations belong to no weight.
    if found.len() > before {
        it.inputs[1..].iter().flatten().for_each(|it| behind(m, *it, depth - 1, found));
    }
}

/// What a quantization left in float, by reason and operator, the largest first.
pub fn kept(rows: &[PlanRow]) -> Vec<Kept> {
    let mut groups: BTreeMap<(&str, &str), Group> = BTreeMap::new();
    for row in rows {
        let Some(reason) = &row.kept else { continue };
        let group = groups.entry((reason, &row.op)).or_default();
        group.nodes.push(row.node.clone());
        let elements: usize = row.shape.iter().product();
        if !row.weight.is_empty() {
            group.weights.insert(&row.weight, size_of::<f32>() as u64 * elements as u64);
        }
    }
    let kept = |((reason, op), it): ((&str, &str), Group)| Kept {
        reason: reason.to_owned(),
        op: op.to_owned(),
        nodes: it.nodes,
        others: 0,
        bytes: it.weights.values().sum(),
    };
    let mut list: Vec<Kept> = groups.into_iter().map(kept).collect();
    list.sort_by_key(|it| Reverse(it.bytes));
    list
}

/// Nodes that stay for one reason, and the bytes of each weight, which some may share.
#[derive(Default)]
struct Group<'a> {
    nodes: Vec<String>,
    weights: BTreeMap<&'a str, u64>,
}
