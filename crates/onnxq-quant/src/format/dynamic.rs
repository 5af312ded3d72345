//! Dynamic int8 in standard operators, which ONNX Runtime fuses to `DynamicQuantizeMatMul`, or to
//! `MatMulIntegerToFloat` where several nodes share an activation; a bias behind it fuses too.
//!
//! `MatMul(DQ(DynamicQuantizeLinear(x)), DQ(w))` becomes
//! `Mul(Cast(MatMulInteger(xq, wq, xz)), Mul(xs, ws))`.

use super::{Format, any_width, dynamic_activation, dynamic_scheme, is_product, product_weight};
use crate::insert::short;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match,
    tensor::{DType, Packing},
};
use onnxq_rewrite::Rule;

pub(super) const DYNAMIC: Format = Format {
    name: "dynamic",
    help: "int8 weights per channel, activations quantized while running; standard operators",
    packing: Packing::PerChannel,
    place: |m, site| {
        is_product(m, site)?;
        match m.opset("") {
            11.. => Ok(()),
            opset => Err(no_match!("DynamicQuantizeLinear needs opset 11, the model has {opset}")),
        }
    },
    scheme: dynamic_scheme,
    half_scales: false,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_DYNAMIC],
    stays_canonical: |_, _| false,
    opset: None,
    fitted: any_width,
};

const LOWER_DYNAMIC: Rule = Rule {
    name: "lower-dynamic",
    help: "MatMul of a dynamically quantized activation and an int8 weight → MatMulInteger",
    root: "MatMul",
    apply,
};

fn apply(m: &Model, matmul: NodeId) -> Result<Patch, NoMatch> {
    let [xq, xs, xz] = dynamic_activation(m, m.operand(matmul, 0)?)?;
    let w = product_weight(m, matmul)?;
    let output = m.node(matmul).output();
    let stem = short(&m.value(output).name);
    let name = |suffix: &str| format!("{stem}_{suffix}");

    let mut patch = Patch::before(matmul);
    let inputs = [xq.into(), w.quantized.into(), xz.into()];
    let own = &m.node(matmul).name;
    let sum = patch.named(own, &name("int32"), "MatMulInteger", inputs, Attrs::default());
    let to = Attrs::default().with("to", i64::from(DType::F32.number()));
    let sum = patch.step(&name("sum"), "Cast", [sum], to);
    let scales: [Ref; 2] = [xs.into(), w.scales.into()];
    let scale = patch.step(&name("scale"), "Mul", scales, Attrs::default());
    let y = patch.step(&stem, "Mul", [sum, scale], Attrs::default());
    Ok(patch.replace(output, y))
}
