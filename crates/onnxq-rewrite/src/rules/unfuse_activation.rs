//! A product with the function behind it, as ONNX Runtime saves optimized models, becomes the two
//! nodes that the standard has.
//!
//! ```text
//! FusedConv(x, w, b, z, activation)      →      activation(Conv(x, w, b) + z)
//! FusedGemm(a, b, c, activation)         →      activation(Gemm(a, b, c))
//! ```

use super::{number, stem};
use crate::Rule;
use onnxq_ir::{
    Attr, Attrs, Model, NoMatch, NodeId, Op, Patch, Ref, no_match, ops::Traits, tensor::DType,
};

pub(super) const UNFUSE_CONV_ACTIVATION: Rule = Rule {
    name: "unfuse-conv-activation",
    help: "write FusedConv of ONNX Runtime as Conv and its activation function",
    root: "com.microsoft.FusedConv",
    apply: conv,
};

pub(super) const UNFUSE_GEMM_ACTIVATION: Rule = Rule {
    name: "unfuse-gemm-activation",
    help: "write FusedGemm of ONNX Runtime as Gemm and its activation function",
    root: "com.microsoft.FusedGemm",
    apply: gemm,
};

/// Parameters of activation functions, in the order of `activation_params`; limits of `Clip` are
/// inputs.
const PARAMETERS: [&str; 2] = ["alpha", "beta"];
const LIMITS: [&str; 2] = ["min", "max"];

fn conv(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let params = match m.node(node).attrs.get("activation_params") {
        Some(Attr::Floats(it)) => it.clone(),
        _ => Vec::new(),
    };
    let attrs = without(m, node, &["activation", "activation_params"]);
    unfuse(m, node, ("Conv", attrs), &params)
}

fn gemm(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let names = ["activation_alpha", "activation_beta"];
    let params: Vec<f32> =
        names.iter().filter_map(|it| m.node(node).attrs.get(it)?.as_float()).collect();
    let all = ["activation", "activation_alpha", "activation_beta", "activation_gamma"];
    unfuse(m, node, ("Gemm", without(m, node, &all)), &params)
}

fn without(m: &Model, node: NodeId, names: &[&str]) -> Attrs {
    let mut attrs = m.node(node).attrs.clone();
    names.iter().for_each(|name| drop(attrs.remove(name)));
    attrs
}

fn unfuse(
    m: &Model,
    node: NodeId,
    (op, attrs): (&str, Attrs),
    params: &[f32],
) -> Result<Patch, NoMatch> {
    let name = stem(m, node);
    let inner = format!("{name}.linear");
    let inputs = m.node(node).inputs.iter().take(3);
    let inputs: Vec<Ref> = inputs.map(|it| it.map_or(Ref::None, Ref::from)).collect();
    let activation = match m.node(node).attrs.get("activation").map(Attr::as_bytes) {
        Some(Some(it)) => String::from_utf8_lossy(it).into_owned(),
        _ => String::new(),
    };
    let mut patch = Patch::before(node);
    // The node that is quantized keeps the name that recipes know.
    let mut value = patch.named(&name, &inner, op, inputs, attrs);
    if let Ok(added) = m.operand(node, 3) {
        value = patch.step(&format!("{name}.sum"), "Add", [value, added.into()], Attrs::default());
    }
    if !activation.is_empty() {
        value = function(m, node, &mut patch, (&activation, params), value)?;
    }
    Ok(patch.replace(m.node(node).output(), value))
}

fn function(
    m: &Model,
    node: NodeId,
    patch: &mut Patch,
    (activation, params): (&str, &[f32]),
    value: Ref,
) -> Result<Ref, NoMatch> {
    let is_clip = activation == "Clip";
    if !is_clip && !Op::new(activation).has(Traits::ACTIVATION) {
        return Err(no_match!("its activation function is not known"));
    }
    if is_clip && m.opset("") < 11 {
        return Err(no_match!("limits of Clip are inputs from opset 11 on"));
    }
    let (mut inputs, mut attrs) = (vec![value], Attrs::default());
    let dtype = m.dtype(m.operand(node, 0)?).unwrap_or(DType::F32);
    for (key, param) in if is_clip { LIMITS } else { PARAMETERS }.iter().zip(params) {
        match is_clip {
            true => inputs.push(number(patch, key, *param, dtype)?),
            false => attrs.set(key, (*param).into()),
        }
    }
    Ok(patch.step(&stem(m, node), activation, inputs, attrs))
}
