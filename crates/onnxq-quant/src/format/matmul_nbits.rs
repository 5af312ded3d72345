//! `com.microsoft.MatMulNBits`: float activations, weights of 2, 4 or 8 bits in blocks.

use super::{Blocks, Format, MICROSOFT, any_width, attrs, blocked_scheme, is_matmul, quantized};
use onnxq_ir::{
    Model, NoMatch, NodeId, Patch, Ref,
    tensor::{Packing, ZeroPoints},
};
use onnxq_rewrite::Rule;

pub(super) const MATMUL_NBITS: Format = Format {
    name: "matmul_nbits",
    help: "2-, 4- or 8-bit weights in blocks, float activations: com.microsoft.MatMulNBits",
    packing: Packing::Blocked,
    place: is_matmul,
    scheme: blocked_scheme,
    half_scales: true,
    int8_activations: false,
    float_when_loaded: false,
    rules: &[&LOWER_MATMUL_NBITS],
    stays_canonical: |_, _| false,
    opset: Some((MICROSOFT, 1)),
    fitted: any_width,
};

const LOWER_MATMUL_NBITS: Rule = Rule {
    name: "lower-matmul-nbits",
    help: "MatMul of an activation and a blocked DequantizeLinear → MatMulNBits",
    root: "MatMul",
    apply,
};

/// Activations may be quantized to int8 inside the kernel: without this, 8 and 2 bits have no
/// kernel at all and run 16 to 30 times slower.
const ACCURACY_LEVEL: i64 = 4;

fn apply(m: &Model, matmul: NodeId) -> Result<Patch, NoMatch> {
    let x = m.operand(matmul, 0)?;
    let w = quantized(m, m.operand(matmul, 1)?, Packing::Blocked)?;
    let blocks = Blocks::of(m, &w)?;
    let shape = blocks.source.shape();
    let output = m.node(matmul).output();
    // ONNX Runtime folds an Add of a bias behind it by itself.
    let mut patch = Patch::before(matmul);
    let quantized = blocks.quantized(&mut patch, "nbits", Packing::NBits);
    let mut inputs: Vec<Ref> = vec![x.into(), quantized, blocks.scales(&mut patch)];
    if shape.zero_points == ZeroPoints::Asymmetric {
        inputs.push(blocks.zero_points(&mut patch));
    }
    let attrs = attrs(&[
        ("K", shape.k as i64),
        ("N", shape.n as i64),
        ("accuracy_level", ACCURACY_LEVEL),
        ("bits", i64::from(shape.bits)),
        ("block_size", shape.block as i64),
    ]);
    let name = &m.node(matmul).name;
    let y = patch.named(name, "y", "com.microsoft.MatMulNBits", inputs, attrs);
    Ok(patch.replace(output, y))
}
