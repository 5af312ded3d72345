//! `Scan` 8 ran over a batch of sequences, which is now a `Scan` around a `Scan`.
//!
//! ```text
//! Scan-8 (, s [b, …], x [b, n, …])  →  Scan (s, x) with the body { Scan (s', x') with the body }
//! ```

use onnxq_ir::{
    Attr, Attrs, Def, GraphId, Model, NoMatch, NodeId, Op, ValueId, no_match, tensor::TensorType,
};

pub(super) fn scan_9(m: &mut Model, node: NodeId) -> Result<(), NoMatch> {
    let it = m.node(node).clone();
    let Some(Attr::Graph(body)) = it.attrs.get("body").cloned() else {
        return Err(no_match!("it has no body"));
    };
    if it.inputs.first().copied().flatten().is_some() {
        return Err(no_match!("it has sequence lengths, which opset 9 has not"));
    }
    let inputs: Vec<ValueId> = it.inputs.iter().skip(1).copied().flatten().collect();
    let scanned = m.int_attr(node, "num_scan_inputs", 0);
    let states = usize::try_from(scanned).ok().and_then(|it| inputs.len().checked_sub(it));
    let Some(states) = states.filter(|_| inputs.len() + 1 == it.inputs.len()) else {
        return Err(no_match!("its inputs do not fit `num_scan_inputs`"));
    };

    let around = batch_body(m, &it.attrs, body, (inputs.len(), states), it.outputs.len());
    m.graph_mut(around).parent = Some(node);
    let attrs =
        Attrs::default().with("body", Attr::Graph(around)).with("num_scan_inputs", inputs.len());
    m.node_mut(node).attrs = attrs;
    for (index, value) in inputs.iter().enumerate() {
        m.set_input(node, index, Some(*value));
    }
    m.set_input(node, inputs.len(), None);
    m.node_mut(node).inputs.pop();
    Ok(())
}

/// A graph for one element of the batch: the old loop, with its old body.
fn batch_body(
    m: &mut Model,
    attrs: &Attrs,
    body: GraphId,
    (inputs, states): (usize, usize),
    outputs: usize,
) -> GraphId {
    let around = m.add_graph();
    m.graph_mut(around).name = format!("{}_batch", m.graph(body).name);
    let formal = m.graph(body).inputs.clone();
    let inputs: Vec<Option<ValueId>> = (0..inputs)
        .map(|at| {
            let ty = formal.get(at).and_then(|it| m.value(*it).ty.clone());
            // A sequence has a dimension more than its elements.
            let ty = if at < states { ty } else { ty.map(without_shape) };
            let name = formal.get(at).map_or("".into(), |it| m.value(*it).name.clone());
            Some(m.add_input(around, &name, ty))
        })
        .collect();
    let results = m.graph(body).outputs.clone();
    let outputs: Vec<ValueId> = (0..outputs)
        .map(|at| {
            let ty = results.get(at).and_then(|it| m.value(*it).ty.clone());
            let ty = if at < states { ty } else { ty.map(without_shape) };
            m.add_value("", ty, Def::Input(around, None))
        })
        .collect();
    let mut inner = attrs.clone();
    if let Some(directions) = inner.remove("directions") {
        inner.set("scan_input_directions", directions);
    }
    let what = (Op::new("Scan"), "".into());
    m.add_node(around, None, what, inputs, inner, outputs.clone());
    outputs.into_iter().for_each(|it| m.add_output(around, it));
    around
}

fn without_shape(ty: TensorType) -> TensorType {
    TensorType { shape: None, ..ty }
}
