//! Dynamic int8 as one `com.microsoft.DynamicQuantizeMatMul` per node, its bias inside.
//!
//! The form that ONNX Runtime's ARM kernels (KleidiAI) take; it depends on no operator set of the
//! standard domain.

use super::{Format, MICROSOFT, any_width, dynamic_scheme, is_product, product_weight};
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match, tensor::Packing};
use onnxq_rewrite::Rule;

pub(super) const DYNAMIC_FUSED: Format = Format {
    name: "dynamic_fused",
    help: "int8 weights per channel, quantized while running; one com.microsoft operator per node",
    packing: Packing::PerChannel,
    place: is_product,
    scheme: dynamic_scheme,
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_DYNAMIC_FUSED],
    stays_canonical: |_, _| false,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

const LOWER_DYNAMIC_FUSED: Rule = Rule {
    name: "lower-dynamic-fused",
    help: "MatMul of a dynamically quantized activation and an int8 weight → DynamicQuantizeMatMul",
    root: "MatMul",
    apply,
};

fn apply(m: &Model, matmul: NodeId) -> Result<Patch, NoMatch> {
    let dq = m.producer(m.operand(matmul, 0)?, "DequantizeLinear")?;
    let quantize = m.producer(m.operand(dq, 0)?, "DynamicQuantizeLinear")?;
    let x = m.operand(quantize, 0)?;
    let w = product_weight(m, matmul)?;
    let (output, bias) = with_bias(m, matmul);

    let mut patch = Patch::before(matmul);
    let mut inputs: Vec<Ref> = vec![x.into(), w.quantized.into(), w.scales.into()];
    if let Some(bias) = bias {
        inputs.extend([Ref::None, bias.into()]);
    }
    let op = "com.microsoft.DynamicQuantizeMatMul";
    let y = patch.named(&m.node(matmul).name, "y", op, inputs, Attrs::default());
    Ok(patch.replace(output, y))
}

/// The value to replace: that of `Add(y, bias)` if it is all that uses `y`, else `y` itself.
pub(super) fn with_bias(m: &Model, matmul: NodeId) -> (ValueId, Option<ValueId>) {
    let y = m.node(matmul).output();
    match bias(m, matmul, y) {
        Ok((sum, bias)) => (sum, Some(bias)),
        Err(_) => (y, None),
    }
}

fn bias(m: &Model, matmul: NodeId, y: ValueId) -> Result<(ValueId, ValueId), NoMatch> {
    let add = m.only_use(y)?;
    if !m.node(add).op.is("Add") || m.node(add).graph != m.node(matmul).graph {
        return Err(no_match!("`{}` is not added to a bias", m.value(y).name));
    }
    let (_, bias) = m.either_operand(add, "MatMul")?;
    let tensor = m.constant(bias)?;
    if tensor.shape.len() != 1 || tensor.numel() == 1 {
        return Err(no_match!("`{}` is not a vector", m.value(bias).name));
    }
    Ok((m.node(add).output(), bias))
}
