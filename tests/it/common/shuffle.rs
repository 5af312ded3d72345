//! Other valid orders of a model's nodes, and what stays the same in all of them.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use onnxq_ir::{Attr, Def, GraphId, Model, NodeId, ValueId};

use super::random::Random;

/// Puts the nodes of every graph in another order, each after what it needs.
pub(crate) fn shuffle(model: &mut Model, seed: u64) {
    let mut random = Random(seed);
    for graph in model.graphs() {
        let order = any_order(model, graph, &mut random);
        model.reorder(graph, &order);
    }
    model.verify().expect("each node comes after what it needs");
}

/// Depth first from nodes in any order, operands in any order: what one operand needs may come
/// long after all of another.
fn any_order(model: &Model, graph: GraphId, random: &mut Random) -> Vec<NodeId> {
    let nodes = shuffled(model.nodes_of(graph).collect(), random);
    let (mut order, mut seen) = (Vec::new(), HashSet::new());
    for node in nodes {
        visit(model, node, random, &mut seen, &mut order);
    }
    order
}

fn visit(
    model: &Model,
    node: NodeId,
    random: &mut Random,
    seen: &mut HashSet<NodeId>,
    order: &mut Vec<NodeId>,
) {
    if !seen.insert(node) {
        return;
    }
    for value in shuffled(model.needs(node), random) {
        if let Def::Node(it) = model.value(value).def
            && model.node(it).graph == model.node(node).graph
        {
            visit(model, it, random, seen, order);
        }
    }
    order.push(node);
}

fn shuffled<T>(mut list: Vec<T>, random: &mut Random) -> Vec<T> {
    for last in (1..list.len()).rev() {
        list.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
    list
}

/// What a model computes, step by step, without the names and the order of its nodes: equal texts
/// are equal graphs.
pub(crate) fn structure(model: &Model) -> String {
    let mut texts = HashMap::new();
    graph_text(model, model.main, &mut texts)
}

fn graph_text(model: &Model, graph: GraphId, texts: &mut HashMap<ValueId, String>) -> String {
    for (at, input) in model.graph(graph).inputs.iter().enumerate() {
        texts.insert(*input, format!("input {at}"));
    }
    for node in model.nodes_of(graph) {
        let text = digest(node_text(model, node, texts).as_bytes());
        for (at, output) in model.node(node).outputs.iter().enumerate() {
            texts.insert(*output, format!("{text}.{at}"));
        }
    }
    let outputs = model.graph(graph).outputs.iter();
    let lines: Vec<String> = outputs.map(|it| value_text(model, *it, texts)).collect();
    format!("{} nodes: {}", model.nodes_of(graph).count(), lines.join(" "))
}

fn node_text(model: &Model, node: NodeId, texts: &mut HashMap<ValueId, String>) -> String {
    let found = model.node(node);
    let mut text = found.op.to_string();
    for input in &found.inputs {
        let input = input.map_or("none".to_owned(), |it| value_text(model, it, texts));
        write!(text, " {input}").unwrap();
    }
    let mut attrs: Vec<String> = found
        .attrs
        .iter()
        .map(|(name, attr)| match attr {
            Attr::Graph(graph) => format!("{name}={}", graph_text(model, *graph, texts)),
            Attr::Tensor(tensor) => format!("{name}={:?}", tensor.bytes().unwrap()),
            other => format!("{name}={other:?}"),
        })
        .collect();
    attrs.sort();
    text + &attrs.join(" ")
}

fn value_text(model: &Model, value: ValueId, texts: &HashMap<ValueId, String>) -> String {
    match &model.value(value).def {
        Def::Const(it) => {
            let kind = format!("{:?} {:?} ", it.dtype, it.shape);
            digest(&[kind.as_bytes(), &it.bytes().unwrap()].concat())
        }
        _ => texts.get(&value).cloned().unwrap_or_else(|| "sparse".to_owned()),
    }
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> String {
    let start = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, it: &u8| (hash ^ u64::from(*it)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(start, step))
}
