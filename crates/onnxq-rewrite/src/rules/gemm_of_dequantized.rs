//! `Gemm` with a dequantized weight becomes `MatMul` and `Add`, which ONNX Runtime fuses.
//!
//! ```text
//! Gemm <transB: 1> (x, DequantizeLinear(w), c)      →      Add(MatMul(x, DequantizeLinear(wᵀ)), c)
//! ```

use super::transpose_of_dequantized::dequantized;
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, no_match};

pub(super) const GEMM_OF_DEQUANTIZED: Rule = Rule {
    name: "gemm-of-dequantized",
    help: "write Gemm with a dequantized weight as MatMul and Add, which ONNX Runtime fuses",
    root: "Gemm",
    apply,
};

fn apply(m: &Model, gemm: NodeId) -> Result<Patch, NoMatch> {
    let (a, b) = (m.operand(gemm, 0)?, m.operand(gemm, 1)?);
    let dq = m.producer(b, "DequantizeLinear")?;
    m.constant(m.operand(dq, 0)?)?;
    if m.producer(a, "DequantizeLinear").is_ok() {
        return Err(no_match!("`{}` is dequantized too: this becomes QGemm", m.value(a).name));
    }
    let (alpha, beta) = (m.float_attr(gemm, "alpha", 1.0), m.float_attr(gemm, "beta", 1.0));
    if (alpha, beta) != (1.0, 1.0) || m.int_attr(gemm, "transA", 0) != 0 {
        return Err(no_match!("alpha, beta or transA are not the defaults"));
    }
    let it = m.node(gemm);
    let name = super::stem(m, gemm);
    let mut patch = Patch::before(gemm);
    let w = match m.int_attr(gemm, "transB", 0) {
        0 => b.into(),
        _ => dequantized(m, dq, &m.node(dq).name, &mut patch)?,
    };
    let mut y = patch.node(&name, "MatMul", [a.into(), w], Attrs::default());
    if let Some(bias) = it.inputs.get(2).copied().flatten() {
        bias_fits(m, bias)?;
        y = patch.node(&format!("{name}.add"), "Add", [y, bias.into()], Attrs::default());
    }
    Ok(patch.replace(it.output(), y))
}

/// Gemm lets its bias grow to the result; Add would let the result grow to the bias.
fn bias_fits(m: &Model, bias: onnxq_ir::ValueId) -> Result<(), NoMatch> {
    match m.rank(bias) {
        Some(0 | 1) => Ok(()),
        _ => Err(no_match!("`{}` is no vector", m.value(bias).name)),
    }
}
