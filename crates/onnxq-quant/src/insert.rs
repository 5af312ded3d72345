//! The canonical form: `DequantizeLinear` before each planned weight, and
//! `DynamicQuantizeLinear → DequantizeLinear` before each planned activation, or
//! `QuantizeLinear → DequantizeLinear` if its range is fixed.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    format,
    ops::{self, Weight},
    plan::{Activation, Plan, SitePlan},
    region::{Layout, emit},
    sources::Sources,
};
use onnxq_ir::{
    Attrs, GraphId, Model, NodeId, Patch, ValueId,
    tensor::{DType, Packing, Part, QSource, Tensor},
};
use onnxq_numerics::scheme::{Granularity, Scales};

/// Puts the planned weights and activations into the model. Weights that `sources` lacks are
/// added to it; nothing is computed yet.
///
/// A weight that several sites use with the same scheme gets one source; an activation that
/// several sites use is quantized once.
pub fn quantize(m: &mut Model, plan: &Plan, sources: &mut Sources) {
    let layout = Layout::new(m, plan);
    for (node, reason) in &layout.left {
        tracing::debug!("{} stays in float: {reason}", m.node_label(*node));
    }
    let region = emit::before(m, &layout);
    let mut shared = Shared { sources, activations: BTreeMap::new() };
    for it in plan.sites.iter().filter(|it| it.activation != Some(Activation::Static)) {
        shared.site(m, it);
    }
    emit::emit(m, plan, &layout, &region, sources);
}

struct Shared<'a> {
    sources: &'a mut Sources,
    activations: BTreeMap<(GraphId, ValueId, Activation), Quantized>,
}

/// An activation: `DQ(DynamicQuantizeLinear(x))`, and what its rows were divided by.
#[derive(Clone, Copy)]
struct Quantized {
    x: ValueId,
    rows: Option<ValueId>,
}

impl Shared<'_> {
    fn site(&mut self, m: &mut Model, it: &SitePlan) {
        let node = it.site.node;
        if it.site.kind == Weight::Recurrent {
            return self.recurrent(m, it);
        }
        let source = self.sources.get(m, it);
        let weight = weight(m, it, source);
        if it.site.kind == Weight::Gather {
            Patch::before(node).rewire(node, 0, weight.into()).apply(m);
            return;
        }
        let half = m.constant(it.site.weight).is_ok_and(|it| it.dtype == DType::F16);
        let Some(kind) = it.activation else {
            Patch::before(node).rewire(node, 1, weight.into()).apply(m);
            return;
        };
        let x = self.activation(m, node, kind, half);
        let y = m.node(node).output();
        let stem = short(&m.value(y).name);
        let mut patch = Patch::before(node);
        let name = m.node(node).name.to_string();
        let inputs = [x.x.into(), weight.into()];
        let mut out = patch.named(&name, &stem, "MatMul", inputs, Attrs::default());
        if let Some(rows) = x.rows {
            out =
                patch.step(&format!("{stem}_scaled"), "Mul", [out, rows.into()], Attrs::default());
        }
        if half {
            out = patch.step(&format!("{stem}_half"), "Cast", [out], to(DType::F16));
        }
        patch.replace(y, out).apply(m);
    }

    /// Both weights; what the operator does to its activations it does by itself.
    fn recurrent(&mut self, m: &mut Model, it: &SitePlan) {
        let node = it.site.node;
        for (index, site) in ops::weights(m, &it.site) {
            let part = SitePlan { site, ..it.clone() };
            let source = self.sources.get(m, &part);
            let weight = weight(m, &part, source);
            Patch::before(node).rewire(node, index, weight.into()).apply(m);
        }
    }

    fn activation(
        &mut self,
        m: &mut Model,
        node: NodeId,
        kind: Activation,
        half: bool,
    ) -> Quantized {
        let x = m.operand(node, 0).expect("a planned MatMul has an activation");
        // Within a graph, nodes come in order: the first user defines it before all others.
        let key = (m.node(node).graph, x, kind);
        if let Some(it) = self.activations.get(&key) {
            return *it;
        }
        let stem = short(&m.value(x).name);
        let x = if half { to_f32(m, node, x, &stem) } else { x };
        let (x, rows) = match kind {
            Activation::DynamicPerTensor | Activation::Static => (x, None),
            Activation::DynamicPerToken => {
                let (x, rows) = normalize_rows(m, node, x, &stem);
                (x, Some(rows))
            }
        };
        let it = Quantized { x: quantize_dynamic(m, node, x, &stem), rows };
        self.activations.insert(key, it);
        it
    }
}

/// `DequantizeLinear` of the weight of a site.
pub(super) fn weight(m: &mut Model, it: &SitePlan, source: Arc<dyn QSource>) -> ValueId {
    let packing = it.format.packing_of(it.site.kind);
    if it.format.float_when_loaded {
        return format::stored(m, &it.site, source, packing);
    }
    let shape = m.constant(it.site.weight).expect("planned weights are constant").shape.clone();
    let attrs = match it.scheme.granularity {
        // One block for all that a column sums over.
        Granularity::Channel if matches!(packing, Packing::PerSlice(_)) => {
            let (axis, k) = (shape.len() - 2, shape[shape.len() - 2]);
            Attrs::default().with("axis", axis as i64).with("block_size", k as i64)
        }
        Granularity::Channel => {
            Attrs::default().with("axis", i64::from(packing != Packing::PerRow))
        }
        Granularity::Block(block) => {
            let axis = i64::from(packing == Packing::BlockedRows);
            Attrs::default().with("axis", axis).with("block_size", block)
        }
    };
    let name = m.value(it.site.weight).name.to_string();
    let mut patch = Patch::before(it.site.node);
    let mut parts =
        [(Part::Quantized, "codes"), (Part::Scales, "scales"), (Part::ZeroPoints, "zeros")].map(
            |(part, suffix)| {
                let tensor = Tensor::packed(source.clone(), part, packing);
                let tensor = format::of_shape(tensor, &shape, part, packing);
                patch.constant(&format!("{name}_{suffix}"), tensor)
            },
        );
    if it.scales == Scales::Float16 {
        parts[1] = format::widened(&mut patch, &name, parts[1], DType::F32);
    }
    let dq = patch.step(&format!("{name}_dq"), "DequantizeLinear", parts, attrs);
    patch.apply(m).value(dq)
}

fn to_f32(m: &mut Model, node: NodeId, x: ValueId, stem: &str) -> ValueId {
    let mut patch = Patch::before(node);
    let x = patch.step(&format!("{stem}_float"), "Cast", [x.into()], to(DType::F32));
    patch.apply(m).value(x)
}

/// `DQ(DynamicQuantizeLinear(x))`.
fn quantize_dynamic(m: &mut Model, node: NodeId, x: ValueId, stem: &str) -> ValueId {
    let mut patch = Patch::before(node);
    let outputs = [format!("{stem}_u8"), format!("{stem}_scale"), format!("{stem}_zero")];
    let [q, s, z] = patch.step_with_outputs(
        [&outputs[0], &outputs[1], &outputs[2]],
        "DynamicQuantizeLinear",
        [x.into()],
        Attrs::default(),
    );
    let dq = patch.step(&format!("{stem}_dq"), "DequantizeLinear", [q, s, z], Attrs::default());
    patch.apply(m).value(dq)
}

/// `(x / a, a)` with `a = max(|x|)` along the last axis: rows keep their own scale.
fn normalize_rows(m: &mut Model, node: NodeId, x: ValueId, stem: &str) -> (ValueId, ValueId) {
    let name = |suffix: &str| format!("{stem}_{suffix}");
    let mut patch = Patch::before(node);
    let abs = patch.step(&name("abs"), "Abs", [x.into()], Attrs::default());
    let keep = Attrs::default().with("keepdims", 1i64);
    let max = if m.opset("") >= 18 {
        let axes = patch.constant("last_axis", Tensor::from_i64(&[1], [-1]));
        patch.step(&name("row_max"), "ReduceMax", [abs, axes], keep)
    } else {
        patch.step(&name("row_max"), "ReduceMax", [abs], keep.with("axes", vec![-1i64]))
    };
    // A row of zeros is divided by something. Max broadcasts from opset 8 on.
    let tiny = patch.constant("tiny", Tensor::scalar(1e-9));
    let at_least = if m.opset("") >= 8 { "Max" } else { "Add" };
    let rows = patch.step(&name("rows"), at_least, [max, tiny], Attrs::default());
    // One division per row instead of one per element.
    let inverse = patch.step(&name("inverse"), "Reciprocal", [rows], Attrs::default());
    let x = patch.step(&name("normalized"), "Mul", [x.into(), inverse], Attrs::default());
    let made = patch.apply(m);
    (made.value(x), made.value(rows))
}

/// The last two parts of a path: names of steps are many, and their bytes add up.
pub(super) fn short(name: &str) -> String {
    let mut parts = name.trim_end_matches("_output_0").rsplit('/');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if before.is_empty() { last.to_owned() } else { format!("{before}_{last}") }
}

fn to(dtype: DType) -> Attrs {
    Attrs::default().with("to", i64::from(dtype.number()))
}
