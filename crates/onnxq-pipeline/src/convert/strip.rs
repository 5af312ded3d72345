//! `--strip`: what nobody needs to run the model.

use super::Step;
use onnxq_ir::{Def, Model, NodeId, ValueId, infer};

/// Takes out doc strings, metadata, and types of inner values that inference finds again.
///
/// Names stay: they are how recipes, profiles and callers refer to nodes and values.
pub(super) fn run(m: &mut Model) -> Step {
    let mut step = Step::new("strip");
    let mut went = |count: usize, what: &str| {
        if count > 0 {
            step.changed += count;
            step.lines.push(format!("{count} {what}"));
        }
    };
    let (docs, metadata) = texts(m);
    went(docs, "doc strings");
    went(metadata, "metadata entries");
    went(types(m), "types of inner values");
    step
}

/// Empties doc strings and metadata everywhere; returns how many there were.
fn texts(m: &mut Model) -> (usize, usize) {
    let (mut docs, mut metadata) = (0, 0);
    let mut doc = |it: &mut String| docs += usize::from(!std::mem::take(it).is_empty());
    let mut meta = |it: &mut Vec<(String, String)>| metadata += std::mem::take(it).len();
    doc(&mut m.doc);
    meta(&mut m.metadata);
    for function in &mut m.functions {
        doc(&mut function.doc);
        meta(&mut function.metadata);
    }
    for id in m.graphs() {
        let graph = m.graph_mut(id);
        doc(&mut graph.doc);
        meta(&mut graph.metadata);
    }
    for id in m.nodes() {
        if let Some(kept) = &mut m.node_mut(id).kept {
            doc(&mut kept.doc);
            meta(&mut kept.metadata);
        }
    }
    let tensors: Vec<ValueId> =
        m.values().filter(|it| matches!(it.1.def, Def::Const(_))).map(|it| it.0).collect();
    for id in tensors {
        // The encoded message without its data holds a doc string and metadata, nothing else.
        let kept = m.value_mut(id).kept.as_mut();
        docs += usize::from(kept.is_some_and(|it| it.tensor.take().is_some()));
    }
    (docs, metadata)
}

/// Drops the declared types of inner values that inference finds without them.
fn types(m: &mut Model) -> usize {
    let mut inferred = m.clone();
    let inner: Vec<ValueId> = m
        .nodes()
        .into_iter()
        .filter(|it: &NodeId| m.in_main(m.node(*it).graph))
        .flat_map(|it| m.node(it).outputs.clone())
        .filter(|it| m.value(*it).declared && !m.is_output(*it))
        .collect();
    for &value in &inner {
        inferred.value_mut(value).ty = None;
    }
    infer::run(&mut inferred);
    let mut count = 0;
    for value in inner {
        if m.value(value).ty == inferred.value(value).ty {
            m.value_mut(value).declared = false;
            count += 1;
        }
    }
    count
}
