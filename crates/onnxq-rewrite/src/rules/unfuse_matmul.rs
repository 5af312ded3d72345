//! `FusedMatMul`, as ONNX Runtime saves optimized models, becomes `MatMul`, with a `Transpose` of the
//! last two axes and a `Mul` by its factor where it has them.
//!
//! ```text
//! FusedMatMul(a, b, transB = 1, alpha = f)      →      Mul(MatMul(a, Transpose(b)), f)
//! ```

use super::{number, stem};
use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Ref, no_match};

pub(super) const UNFUSE_MATMUL: Rule = Rule {
    name: "unfuse-matmul",
    help: "write FusedMatMul of ONNX Runtime as MatMul, Transpose and Mul",
    root: "com.microsoft.FusedMatMul",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    for name in ["transBatchA", "transBatchB"] {
        if m.int_attr(node, name, 0) != 0 {
            return Err(no_match!("{name} moves the first axis, which Transpose alone does not"));
        }
    }
    let name = stem(m, node);
    let mut patch = Patch::before(node);
    let a = side(m, node, &mut patch, 0, "transA")?;
    let b = side(m, node, &mut patch, 1, "transB")?;
    let mut y = patch.node(&name, "MatMul", [a, b], Attrs::default());
    let alpha = m.float_attr(node, "alpha", 1.0);
    if alpha != 1.0 {
        let output = m.node(node).output();
        let dtype = m.dtype(output).ok_or_else(|| no_match!("its type is not known"))?;
        let factor = number(&mut patch, "alpha", alpha, dtype)?;
        y = patch.step(&format!("{name}.scaled"), "Mul", [y, factor], Attrs::default());
    }
    Ok(patch.replace(m.node(node).output(), y))
}

fn side(
    m: &Model,
    node: NodeId,
    patch: &mut Patch,
    index: usize,
    flag: &str,
) -> Result<Ref, NoMatch> {
    let value = m.operand(node, index)?;
    if m.int_attr(node, flag, 0) == 0 {
        return Ok(value.into());
    }
    let rank =
        m.rank(value).ok_or_else(|| no_match!("the rank of operand {index} is not known"))?;
    // The transpose of a vector is the vector.
    if rank < 2 {
        return Ok(value.into());
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    let name = format!("{}.transposed", m.value(value).name);
    Ok(patch.step(&name, "Transpose", [value.into()], Attrs::default().with("perm", perm)))
}
