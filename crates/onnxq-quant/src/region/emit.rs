//! Writes `QuantizeLinear` and `DequantizeLinear` around the nodes that compute with quantized
//! values.
//!
//! ```text
//! Conv → Relu        →        DQ, DQ, DQ → Conv → Q → DQ
//! ```
//!
//! Every value becomes quantized values once. Behind a node that yields quantized values all users
//! read them, the float ones too; in front of one that takes quantized values nobody else does.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        insert::{short, weight},
        ops::Weight,
        plan::{Plan, SitePlan},
        sources::Sources,
    },
    bias,
    layout::{Layout, Member},
    table::{self, Role},
};
use onnxq_ir::{
    Attrs, GraphId, Model, NodeId, Patch, Ref, ValueId,
    tensor::{QSource, Tensor},
};
use onnxq_numerics::affine::{Affine, Interval, QuantizedType};

/// A node of the layout as it was before anything was inserted.
pub(crate) struct Before {
    node: NodeId,
    inputs: Vec<Option<ValueId>>,
    outputs: Vec<ValueId>,
}

/// The nodes of a layout in execution order.
pub(crate) fn before(m: &Model, layout: &Layout) -> Vec<Before> {
    let nodes = m.nodes().into_iter().filter(|it| layout.nodes.contains_key(it));
    let before = |node: NodeId| {
        let it = m.node(node);
        Before { node, inputs: it.inputs.clone(), outputs: it.outputs.clone() }
    };
    nodes.map(before).collect()
}

/// Writes all nodes of a layout; `list` is what [`before`] found.
pub(crate) fn emit(
    m: &mut Model,
    plan: &Plan,
    layout: &Layout,
    list: &[Before],
    sources: &mut Sources,
) {
    let sites = plan.sites.iter().map(|it| (it.site.node, it)).collect();
    let mut emitter = Emitter { layout, sites, sources, pairs: BTreeMap::new() };
    for it in list {
        emitter.node(m, it);
    }
}

struct Emitter<'a> {
    layout: &'a Layout,
    sites: BTreeMap<NodeId, &'a SitePlan>,
    sources: &'a mut Sources,
    /// `DequantizeLinear` of values, by what they were.
    pairs: BTreeMap<(GraphId, ValueId), ValueId>,
}

impl Emitter<'_> {
    fn node(&mut self, m: &mut Model, it: &Before) {
        let member = &self.layout.nodes[&it.node];
        // Its producer did its work.
        if member.is_absorbed {
            return;
        }
        let graph = m.node(it.node).graph;
        let mut inputs: Vec<Ref> =
            m.node(it.node).inputs.iter().map(|it| it.map_or(Ref::None, Ref::from)).collect();
        for &index in &member.inputs {
            let value = it.inputs[index].expect("activations are given");
            inputs[index] = self.activation(m, it.node, index, value).into();
        }
        if let Role::Scale(_) = member.role {
            self.scale(m, it, member, graph);
            return;
        }
        self.constants(m, it, member, &mut inputs);
        let mut patch = Patch::before(it.node);
        let stems: Vec<String> = it.outputs.iter().map(|it| short(&m.value(*it).name)).collect();
        let (name, op, attrs) = {
            let it = m.node(it.node);
            (it.name.to_string(), it.op.to_string(), it.attrs.clone())
        };
        let names: Vec<String> = match member.yields {
            true => stems.iter().map(|it| format!("{it}_float")).collect(),
            false => stems.clone(),
        };
        let outputs = patch.named_list(&name, &names, &op, inputs, attrs);
        let mut made = Vec::new();
        for ((old, y), stem) in it.outputs.iter().zip(outputs).zip(&stems) {
            let absorbed = member.absorbed.map(|it| m.node(it).output());
            let target = absorbed.unwrap_or(*old);
            let y = match self.layout.values.get(&target).filter(|_| member.yields) {
                Some(affine) => pair(&mut patch, y, *affine, stem),
                None => y,
            };
            patch = patch.replace(target, y);
            made.push((target, y));
        }
        let applied = patch.apply(m);
        for (target, y) in made.into_iter().filter(|_| member.yields) {
            self.pairs.insert((graph, target), applied.value(y));
        }
    }

    /// `DequantizeLinear` of an activation: that of its producer, or a new pair.
    fn activation(&mut self, m: &mut Model, node: NodeId, index: usize, value: ValueId) -> ValueId {
        // Within a graph, nodes come in order: the first user defines it before all others.
        let key = (m.node(node).graph, value);
        if let Some(it) = self.pairs.get(&key) {
            return *it;
        }
        let now = m.operand(node, index).expect("activations are given");
        let mut patch = Patch::before(node);
        let stem = short(&m.value(value).name);
        let dq = pair(&mut patch, now.into(), self.layout.values[&value], &stem);
        let dq = patch.apply(m).value(dq);
        self.pairs.insert(key, dq);
        dq
    }

    /// The quantized values of the input under another scale.
    fn scale(&mut self, m: &mut Model, it: &Before, member: &Member, graph: GraphId) {
        let x = it.inputs[member.inputs[0]].expect("activations are given");
        let dq = m.producer(self.pairs[&(graph, x)], "DequantizeLinear").expect("a pair");
        let quantized = m.operand(dq, 0).expect("DequantizeLinear has an input");
        let (old, affine) = (it.outputs[0], self.layout.values[&it.outputs[0]]);
        let mut patch = Patch::before(it.node);
        let stem = short(&m.value(old).name);
        let y = dequantize(&mut patch, quantized.into(), affine, &stem);
        let made = patch.replace(old, y).apply(m);
        self.pairs.insert((graph, old), made.value(y));
    }

    /// Weights, biases and constant operands.
    fn constants(&mut self, m: &mut Model, it: &Before, member: &Member, inputs: &mut [Ref]) {
        if let Some(site) = self.sites.get(&it.node).copied() {
            let source = self.sources.get(m, site);
            let x = it.inputs[0].expect("a product has an activation");
            let x_scale = self.layout.values[&x].scale;
            let bias = inputs.get(2).copied().filter(|_| site.site.kind == Weight::Conv);
            let bias = match bias {
                Some(Ref::Old(it)) => Some((it, bias::values(m, it).expect("a planned bias"))),
                _ => None,
            };
            let source: Arc<dyn QSource> = match &bias {
                Some((_, values)) => Arc::new(bias::Widened::new(source, values, x_scale)),
                None => source,
            };
            inputs[1] = weight(m, site, source.clone()).into();
            if let Some((value, values)) = bias {
                inputs[2] = sums(m, it.node, value, values, source, x_scale).into();
            }
            return;
        }
        if !matches!(member.role, Role::Own | Role::Product) {
            return;
        }
        for index in table::operands(m, it.node) {
            if !member.inputs.contains(&index) {
                let dtype =
                    self.layout.values.values().next().map_or(QuantizedType::Uint8, |it| it.dtype);
                inputs[index] = constant(m, it.node, index, dtype).into();
            }
        }
    }
}

/// `DequantizeLinear` of the int32 values of a bias.
fn sums(
    m: &mut Model,
    node: NodeId,
    value: ValueId,
    values: Vec<f32>,
    weight: Arc<dyn QSource>,
    x_scale: f32,
) -> ValueId {
    let name = m.value(value).name.to_string();
    let mut patch = Patch::before(node);
    let quantized = bias::quantized(weight.clone(), values, x_scale);
    let quantized = patch.constant(&format!("{name}_codes"), quantized);
    let scales = patch.constant(&format!("{name}_scales"), bias::scales(weight, x_scale));
    let attrs = Attrs::default().with("axis", 0i64);
    let dq = patch.step(&format!("{name}_dq"), "DequantizeLinear", [quantized, scales], attrs);
    patch.apply(m).value(dq)
}

/// `DequantizeLinear` of the quantized values of a constant, which have a range of their own.
fn constant(m: &mut Model, node: NodeId, index: usize, dtype: QuantizedType) -> ValueId {
    let value = m.operand(node, index).expect("operands are given");
    let values = m.small_f32(value).expect("a planned constant");
    let range =
        values.iter().fold(Interval::default(), |range, it| range.union(Interval::new(*it, *it)));
    let affine = Affine::new(range, dtype);
    let shape = m.constant(value).expect("a planned constant").shape.clone();
    let bytes: Vec<u8> = values.iter().map(|it| affine.integer(*it) as u8).collect();
    let name = m.value(value).name.to_string();
    let mut patch = Patch::before(node);
    let quantized =
        patch.constant(&format!("{name}_codes"), Tensor::new(dtype.dtype(), shape, bytes));
    let dq = dequantize(&mut patch, quantized, affine, &name);
    patch.apply(m).value(dq)
}

/// `DQ(Q(x))`.
fn pair(patch: &mut Patch, x: Ref, affine: Affine, stem: &str) -> Ref {
    let scale = patch.constant(&format!("{stem}_scale"), affine.scale_tensor());
    let zero = patch.constant(&format!("{stem}_zero"), affine.zero_tensor());
    let quantized = match affine.dtype {
        QuantizedType::Int8 => format!("{stem}_i8"),
        QuantizedType::Uint8 => format!("{stem}_u8"),
    };
    let q = patch.step(&quantized, "QuantizeLinear", [x, scale, zero], Attrs::default());
    patch.step(&format!("{stem}_dq"), "DequantizeLinear", [q, scale, zero], Attrs::default())
}

fn dequantize(patch: &mut Patch, quantized: Ref, affine: Affine, stem: &str) -> Ref {
    let scale = patch.constant(&format!("{stem}_scale"), affine.scale_tensor());
    let zero = patch.constant(&format!("{stem}_zero"), affine.zero_tensor());
    let inputs = [quantized, scale, zero];
    patch.step(&format!("{stem}_dq"), "DequantizeLinear", inputs, Attrs::default())
}
