//! An LSTM with int8 weights as `com.microsoft.DynamicQuantizeLSTM`.
//!
//! Its weights lie the other way round, `[directions, inputs, 4 · hidden]`, with a scale and a
//! zero per channel, `[directions, 4 · hidden]`; the input is quantized by its range in each run,
//! the state in each step. Twice to eleven times as fast as the float LSTM (ONNX Runtime 1.31.1,
//! AVX512-VNNI, one thread; sequences of 1 to 40, 48 to 1024 hidden).

use super::{Format, MICROSOFT, any_width, channel_scheme, quantized};
use crate::{ops::Site, plan::Activation};
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match,
    tensor::{DType, Packing, Part, Tensor},
};
use onnxq_rewrite::Rule;

pub(super) const DYNAMIC_LSTM: Format = Format {
    name: "dynamic_lstm",
    help: "LSTM with int8 weights per channel, quantized while running; a com.microsoft operator",
    packing: Packing::PerRow,
    place,
    scheme: |scheme, activation| match activation {
        Some(Activation::DynamicPerTensor) => channel_scheme(scheme),
        Some(_) => Err(no_match!("the operator finds one range for a whole input, in each run")),
        None => Err(no_match!("it quantizes activations, and the recipe leaves them in float")),
    },
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_DYNAMIC_LSTM],
    stays_canonical: |_, _| false,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

fn place(m: &Model, site: &Site) -> Result<(), NoMatch> {
    if !m.node(site.node).op.is("LSTM") {
        return Err(no_match!("ONNX Runtime has a quantized LSTM, but no quantized GRU or RNN"));
    }
    if m.int_attr(site.node, "layout", 0) != 0 {
        return Err(no_match!("ONNX Runtime has no LSTM with the batch first (layout = 1)"));
    }
    for index in [1, 2] {
        let value = m.operand(site.node, index)?;
        let (name, dtype) = (&m.value(value).name, m.constant(value)?.dtype);
        if dtype != DType::F32 {
            return Err(no_match!("the quantized LSTM is for float, `{name}` is {dtype}"));
        }
    }
    Ok(())
}

const LOWER_DYNAMIC_LSTM: Rule = Rule {
    name: "lower-dynamic-lstm",
    help: "LSTM of int8 weights → DynamicQuantizeLSTM",
    root: "LSTM",
    apply,
};

fn apply(m: &Model, lstm: NodeId) -> Result<Patch, NoMatch> {
    let mut patch = Patch::before(lstm);
    let mut inputs: Vec<Ref> =
        (0..8).map(|it| m.operand(lstm, it).map_or(Ref::None, Ref::Old)).collect();
    for index in [1, 2] {
        let [quantized, scales, zero_points] = weight(m, &mut patch, lstm, index)?;
        inputs[index] = quantized;
        inputs.extend([scales, zero_points]);
    }
    let node = m.node(lstm);
    let mut attrs = Attrs::default();
    for (name, value) in node.attrs.iter().filter(|it| **it.0 != *"layout") {
        attrs = attrs.with(name, value.clone());
    }
    let op = "com.microsoft.DynamicQuantizeLSTM";
    let made = patch.named_outputs(&node.name, ["y", "y_h", "y_c"], op, inputs, attrs);
    Ok(node.outputs.iter().zip(made).fold(patch, |patch, (old, new)| patch.replace(*old, new)))
}

/// Quantized values, scales and zero points of a weight as the operator takes them.
fn weight(m: &Model, patch: &mut Patch, lstm: NodeId, index: usize) -> Result<[Ref; 3], NoMatch> {
    let quantized = quantized(m, m.operand(lstm, index)?, Packing::PerRow)?.quantized;
    let tensor = m.constant(quantized)?;
    let (source, ..) = tensor.quantized().expect("checked by quantized()");
    let stem = m.value(quantized).name.trim_end_matches("_codes");
    let packing = Packing::PerSlice(tensor.shape[0]);
    let parts = [(Part::Quantized, "codes"), (Part::Scales, "scales"), (Part::ZeroPoints, "zeros")];
    Ok(parts.map(|(part, suffix)| {
        let tensor = Tensor::packed(source.clone(), part, packing);
        patch.constant(&format!("{stem}_{suffix}"), tensor)
    }))
}
