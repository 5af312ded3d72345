//! Static int8 in operators of codes: `QLinearConv`, `QLinearMatMul`, `com.microsoft.QLinearAdd`, …
//!
//! What ONNX Runtime makes of the form `qdq` when it loads a model, written down: for runtimes that
//! do not fuse, and for those who want to see what runs. Rows of operators are in `lower/qlinear`.

use super::{Format, MICROSOFT, qdq, static_fused::product, static_scheme};
use crate::{
    chain::table::{CHAIN, Kind},
    lower::qlinear::{codes, of_codes},
    raise::quantize,
};
use onnxq_ir::{Model, NoMatch, NodeId, Patch, Ref, no_match, tensor::Packing};
use onnxq_rewrite::Rule;

pub const QOPERATOR: Format = Format {
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
};

macro_rules! rules {
    ($($root:literal $apply:path;)*) => {
        const RULES: &[&Rule] = &[$(&Rule {
            name: concat!("lower-qoperator-", $root),
            help: concat!($root, " between DequantizeLinear and QuantizeLinear → its form for codes"),
            root: $root,
            apply: $apply,
        },)*];
    };
}

rules! {
    "Add" of_codes;
    "AveragePool" of_codes;
    "Concat" of_codes;
    "Conv" of_codes;
    "DepthToSpace" moved;
    "Expand" moved;
    "Flatten" moved;
    "Gather" moved;
    "GlobalAveragePool" of_codes;
    "LeakyRelu" of_codes;
    "MatMul" of_codes;
    "MatMul" product;
    "MaxPool" moved;
    "Mul" of_codes;
    "ReduceMax" moved;
    "ReduceMin" moved;
    "Reshape" moved;
    "Resize" moved;
    "Sigmoid" of_codes;
    "Slice" moved;
    "Softmax" of_codes;
    "Split" moved;
    "Squeeze" moved;
    "Tile" moved;
    "Transpose" moved;
    "Unsqueeze" moved;
}

/// An operator that computes no values works on codes as it is.
fn moved(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let it = m.node(node);
    let keeps = CHAIN.iter().any(|row| it.op.is(row.op) && row.kind == Kind::Same);
    let [x, ..] = codes(m, m.operand(node, 0)?, None)?;
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
