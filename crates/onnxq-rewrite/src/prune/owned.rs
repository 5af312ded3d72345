//! What belongs to one layer alone: inputs and outputs of the model, its cache.

use std::collections::{BTreeMap, BTreeSet};

use super::{Layer, flow::Flow};
use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match};

/// Fills in what each layer owns, and refuses what lies in two of them.
pub(super) fn own(flow: &Flow, layers: &mut [Layer]) -> Result<(), NoMatch> {
    let mut owner: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (at, layer) in layers.iter().enumerate() {
        for node in &layer.nodes {
            if let Some(other) = owner.insert(*node, at) {
                let label = flow.m.node_label(*node);
                return Err(no_match!("`{label}` reads what is inside of layers {other} and {at}"));
            }
        }
    }
    let (inputs, outputs) = (inputs(flow, layers, &owner), outputs(flow, layers, &owner));
    for (layer, (inputs, outputs)) in layers.iter_mut().zip(inputs.into_iter().zip(outputs)) {
        (layer.inputs, layer.outputs) = (inputs, outputs);
    }
    for (at, layer) in layers.iter().enumerate().skip(1) {
        for (what, first, own) in [
            ("inputs", &layers[0].inputs, &layer.inputs),
            ("outputs", &layers[0].outputs, &layer.outputs),
        ] {
            if first.len() != own.len() {
                return Err(no_match!(
                    "layer {at} has {} {what} of its own, and layer 0 has {}",
                    own.len(),
                    first.len()
                ));
            }
        }
    }
    Ok(())
}

fn inputs(flow: &Flow, layers: &[Layer], owner: &BTreeMap<NodeId, usize>) -> Vec<Vec<ValueId>> {
    let mut list = vec![Vec::new(); layers.len()];
    // What feeds the only layer is no different from what feeds the model.
    if layers.len() > 1 {
        for &input in &flow.m.graph(flow.m.main).inputs {
            if let Some(at) = only_reader(flow, input, layers[0].input, owner) {
                list[at].push(input);
            }
        }
    }
    list
}

/// The layer that alone reads an input, other than through the stream.
fn only_reader(
    flow: &Flow,
    input: ValueId,
    stream: ValueId,
    owner: &BTreeMap<NodeId, usize>,
) -> Option<usize> {
    let (mut found, mut seen, mut work) = (None, BTreeSet::new(), vec![input]);
    while let Some(value) = work.pop() {
        if value == stream || (flow.m.is_output(value) && value != input) {
            return None;
        }
        for node in flow.readers(value) {
            match owner.get(&node) {
                Some(at) if found.is_some_and(|it| it != *at) => return None,
                Some(at) => found = Some(*at),
                None if seen.insert(node) => work.extend(&flow.m.node(node).outputs),
                None => {}
            }
        }
    }
    found
}

fn outputs(flow: &Flow, layers: &[Layer], owner: &BTreeMap<NodeId, usize>) -> Vec<Vec<ValueId>> {
    let mut list = vec![Vec::new(); layers.len()];
    for &output in &flow.m.graph(flow.m.main).outputs {
        let at = flow.producer(output).and_then(|it| owner.get(&it));
        if let Some(&at) = at.filter(|at| layers[**at].output != output) {
            list[at].push(output);
        }
    }
    list
}

/// A name without its numbers.
pub(super) fn template(name: &str) -> String {
    let mut template = String::new();
    for letter in name.chars() {
        match letter.is_ascii_digit() {
            true if template.ends_with('#') => {}
            true => template.push('#'),
            false => template.push(letter),
        }
    }
    template
}

/// For each value of `first` the one of `other` whose name differs in numbers only; `None` if they do
/// not pair.
pub(super) fn paired(
    m: &Model,
    first: &[ValueId],
    other: &[ValueId],
) -> Option<Vec<(ValueId, ValueId)>> {
    let key = |it: &ValueId| template(&m.value(*it).name);
    let of = |list: &[ValueId]| -> BTreeMap<String, ValueId> {
        list.iter().map(|it| (key(it), *it)).collect()
    };
    let (first_by, other_by) = (of(first), of(other));
    let pairs = first_by.len() == first.len() && first_by.keys().eq(other_by.keys());
    pairs.then(|| first.iter().map(|it| (*it, other_by[&key(it)])).collect())
}
