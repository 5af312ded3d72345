//! Sines and cosines of rotary embeddings.

use super::{embed::Inputs, graph::Graph};
use crate::arch::Rotary;
use onnxq_ir::{
    Attr, Attrs, ValueId,
    tensor::{DType, Tensor, TensorType},
};

/// Cosines and sines: `[batch, sequence, size / 2]` for [`Form::Standard`](super::Form::Standard),
/// tables `[places, size / 2]` for the other.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) cos: ValueId,
    pub(super) sin: ValueId,
    /// Elements of a head that turn.
    pub(super) size: usize,
}

/// Of the places that the model is given.
pub(super) fn turns(graph: &mut Graph, rotary: &Rotary, index: usize, inputs: &Inputs) -> Turn {
    let none = Attrs::default;
    let places = inputs.places.expect("an input of models that rotate");
    let name = |it: &str| format!("rotary_{index}.{it}");
    let list = |values: &[f32]| Tensor::from_f32(&[values.len()], values.iter().copied());
    let mut frequencies = graph.constant(&name("frequencies"), list(&rotary.frequencies));
    if let Some((limit, long)) = &rotary.long {
        let attrs = none().with("keepdims", 0i64);
        let last = graph.node("ReduceMax", &name("last"), [places], attrs);
        let limit = graph.ints(&name("limit"), &[], &[*limit as i64 - 1]);
        let is_long = graph.node("Greater", &name("is_long"), [last, limit], none());
        let long = graph.constant(&name("long_frequencies"), list(long));
        frequencies =
            graph.node("Where", &name("used_frequencies"), [is_long, long, frequencies], none());
    }
    let axis = graph.ints("two_list", &[1], &[2]);
    let places = graph.node("Unsqueeze", &name("places"), [places, axis], none());
    let places = graph.cast(&name("float_places"), places, DType::F32);
    let angles = graph.node("Mul", &name("angles"), [places, frequencies], none());
    let [cos, sin] = [("Cos", "cos"), ("Sin", "sin")].map(|(op, it)| {
        let value = graph.node(op, &name(it), [angles], none());
        if rotary.magnitude == 1.0 {
            return value;
        }
        let magnitude = graph.scalar(&name("magnitude"), rotary.magnitude);
        graph.node("Mul", &name(&format!("long_{it}")), [value, magnitude], none())
    });
    Turn { cos, sin, size: rotary.size }
}

/// Of all places there are, for a kernel that looks them up.
pub(super) fn tables(
    graph: &mut Graph,
    rotary: &Rotary,
    index: usize,
    (context, total): (usize, ValueId),
) -> Turn {
    let name = |it: &str| format!("rotary_{index}.{it}");
    let table = |graph: &mut Graph, label: &str, frequencies: &[f32], places: usize| {
        [("cos", f32::cos as fn(f32) -> f32), ("sin", f32::sin)].map(|(it, of)| {
            let tensor = tabulate(frequencies, places, rotary.magnitude, of);
            graph.constant(&name(&format!("{label}{it}")), tensor)
        })
    };
    let Some((limit, long)) = &rotary.long else {
        let [cos, sin] = table(graph, "", &rotary.frequencies, context);
        return Turn { cos, sin, size: rotary.size };
    };
    let short = table(graph, "short_", &rotary.frequencies, context.min(*limit));
    let long = table(graph, "long_", long, context);
    let limit = Tensor::new(DType::I32, vec![], (*limit as i32).to_le_bytes().to_vec());
    let limit = graph.constant(&name("limit"), limit);
    let is_long = graph.node("Greater", &name("is_long"), [total, limit], Attrs::default());
    let [cos, sin] = choose(graph, &name("tables"), is_long, [long, short]);
    Turn { cos, sin, size: rotary.size }
}

/// An `If` between tables that lie outside of it.
fn choose(
    graph: &mut Graph,
    name: &str,
    condition: ValueId,
    tables: [[ValueId; 2]; 2],
) -> [ValueId; 2] {
    let half = graph.model.value(tables[0][0]).ty.as_ref().and_then(|it| it.shape.clone());
    let width = half.and_then(|it| it.get(1).cloned());
    let mut attrs = Attrs::default();
    for (branch, pair) in ["then_branch", "else_branch"].into_iter().zip(tables) {
        let body = graph.model.add_graph();
        graph.model.graph_mut(body).name = format!("{name}_{branch}");
        for (it, table) in ["cos", "sin"].into_iter().zip(pair) {
            let name = format!("{name}_{branch}_{it}");
            let inputs = vec![Some(table)];
            let ty = graph.model.value(table).ty.clone();
            let value = graph.nodes_in(body, "Identity", &name, inputs, Attrs::default(), 1)[0];
            graph.model.value_mut(value).ty = ty;
            graph.model.add_output(body, value);
        }
        attrs.set(branch, Attr::Graph(body));
    }
    let outputs = graph.nodes("If", name, vec![Some(condition)], attrs, 2);
    let [cos, sin] = [outputs[0], outputs[1]];
    if let Some(width) = width {
        let dims = vec![onnxq_ir::tensor::Dim::Unknown, width];
        for it in [cos, sin] {
            graph.model.value_mut(it).ty = Some(TensorType::new(DType::F32, dims.clone()));
        }
    }
    [cos, sin]
}

fn tabulate(frequencies: &[f32], places: usize, magnitude: f32, of: fn(f32) -> f32) -> Tensor {
    let frequencies = frequencies.to_vec();
    let shape = vec![places, frequencies.len()];
    Tensor::lazy(DType::F32, shape.clone(), move || {
        let row = |place: usize| {
            let at = move |it: &f32| of(place as f32 * it) * magnitude;
            frequencies.iter().map(at).collect::<Vec<f32>>()
        };
        Tensor::from_f32(&shape, (0..shape[0]).flat_map(row)).bytes()
    })
}
