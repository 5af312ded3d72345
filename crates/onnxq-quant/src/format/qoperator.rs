//! Static int8 in operators of quantized values: `QLinearConv`, `QLinearMatMul`,
//! `com.microsoft.QLinearAdd`, …
//!
//! What ONNX Runtime makes of the form `qdq` when it loads a model, written down: for runtimes that
//! do not fuse, and for those who want to see what runs. Rows of operators are in `lower/qlinear`.

use super::{Format, MICROSOFT, any_width, qdq, static_fused::product, static_scheme};
use crate::{
    lower::qlinear::{of_quantized, quantized},
    raise::quantize,
    region::table::{Kind, REGION},
};
use onnxq_ir::{Model, NoMatch, NodeId, Patch, Ref, no_match, tensor::Packing};
use onnxq_rewrite::Rule;

pub(super) const QOPERATOR: Format = Format {
    name: "qoperator",
    help: "int8 weights per channel, activations of fixed ranges; QLinearConv, QLinearMatMul, …",
    packing: Packing::PerChannel,
    place: qdq::place,
    scheme: static_scheme,
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: RULES,
    stays_canonical: |_, _| false,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

macro_rules! rules {
    ($($root:literal $apply:path;)*) => {
        const RULES: &[&Rule] = &[$(&Rule {
            name: concat!("lower-qoperator-", $root),
            help: concat!($root, " between DequantizeLinear and QuantizeLinear → its QLinear form"),
            root: $root,
            apply: $apply,
        },)*];
    };
}

rules! {
    "Add" of_quantized;
    "AveragePool" of_quantized;
    "Concat" of_quantized;
    "Conv" of_quantized;
    "DepthToSpace" moved;
    "Expand" moved;
    "Flatten" moved;
    "Gather" moved;
    "GlobalAveragePool" of_quantized;
    "LeakyRelu" of_quantized;
    "MatMul" of_quantized;
    "MatMul" product;
    "MaxPool" moved;
    "Mul" of_quantized;
    "ReduceMax" moved;
    "ReduceMin" moved;
    "Reshape" moved;
    "Resize" moved;
    "Sigmoid" of_quantized;
    "Slice" moved;
    "Softmax" of_quantized;
    "Split" moved;
    "Squeeze" moved;
    "Tile" moved;
    "Transpose" moved;
    "Unsqueeze" moved;
}

/// An operator that computes no values works on quantized values as it is.
fn moved(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let it = m.node(node);
    let keeps = REGION.iter().any(|row| it.op.is(row.op) && row.kind == Kind::Same);
    let [x, ..] = quantized(m, m.operand(node, 0)?, None)?;
    if !keeps {
        return Err(no_match!("{} computes values", it.op));
    }
    let mut last = Vec::new();
    for output in &it.outputs {
        let q = m.only_use(*output)?;
        last.push(m.node(quantize(m, m.node(q).output())?).output());
    }
    let mut inputs: Vec<Ref> = it.inputs.iter().map(|it| it.map_or(Ref::None, Ref::from)).collect();
    inputs[0] = x;
    let names: Vec<String> = last.iter().map(|it| m.value(*it).name.to_string()).collect();
    let mut patch = Patch::before(node);
    let made = patch.named_list(&it.name, &names, &it.op.to_string(), inputs, it.attrs.clone());
    Ok(last.into_iter().zip(made).fold(patch, |patch, (old, new)| patch.replace(old, new)))
}
