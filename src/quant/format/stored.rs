//! int8 weights that are float again once the model is loaded: a quarter of the file, the speed of
//! the float model. For nodes without a fast integer kernel.
//!
//! `DequantizeLinear(codes)` before a float node becomes `Mul(Cast(codes), scales)`, which ONNX
//! Runtime computes when it loads the model. It leaves a `DequantizeLinear` where it is.

use super::{Format, channel_scheme};
use crate::{
    ir::{Attrs, Model, NoMatch, NodeId, Patch, User},
    no_match,
    rewrite::Rule,
    tensor::{Packing, Part, Tensor},
};

pub const STORED: Format = Format {
    name: "stored",
    help: "int8 weights per channel that are float once the model is loaded",
    packing: Packing::PerChannel,
    place: |_, _| Ok(()),
    scheme: |scheme, activation| match activation {
        None => channel_scheme(scheme),
        Some(_) => Err(no_match!("it takes float activations: set `activation: none`")),
    },
    half_scales: false,
    int8_activations: false,
    rules: &[&LOWER_STORED],
    opset: None,
};

pub const LOWER_STORED: Rule = Rule {
    name: "lower-stored",
    help: "DequantizeLinear of an int8 weight before a float operator → Cast, Mul",
    root: "DequantizeLinear",
    apply,
};

fn apply(m: &Model, dq: NodeId) -> Result<Patch, NoMatch> {
    let codes = m.operand(dq, 0)?;
    let tensor = m.constant(codes)?;
    let (source, packing) = match tensor.quantized() {
        Some((source, Part::Codes, it @ (Packing::PerChannel | Packing::PerRow))) => (source, it),
        _ => return Err(no_match!("`{}` has no scale per channel", m.value(codes).name)),
    };
    let output = m.node(dq).output();
    for it in &m.value(output).uses {
        if let User::Node(user) = it.user
            && it.index == 1
            && m.producer(m.operand(user, 0)?, "DequantizeLinear").is_ok()
        {
            return Err(no_match!("the activation is quantized"));
        }
    }
    let name = m.value(codes).name.trim_end_matches("_codes");
    let mut patch = Patch::before(dq);
    let scales = Tensor::packed(source.clone(), Part::Scales, packing);
    let scales = match packing {
        Packing::PerRow => {
            let mut shape = vec![1; tensor.shape.len()];
            shape[0] = tensor.shape[0];
            scales.reshaped(shape)
        }
        _ => scales,
    };
    let scales = patch.constant(&format!("{name}_scales"), scales);
    let to = Attrs::default().with("to", i64::from(source.shape().scale.number()));
    let float = patch.step(&format!("{name}_float"), "Cast", [codes.into()], to);
    let y = patch.step(&format!("{name}_scaled"), "Mul", [float, scales], Attrs::default());
    Ok(patch.replace(output, y))
}
