//! `Transpose` of a constant matrix becomes a transposed view of it; no byte moves.
//!
//! ```text
//! MatMul(x, Transpose <perm = [1, 0]> (w))      →      MatMul(x, wᵀ)
//! ```

use crate::Rule;
use onnxq_ir::{Model, NoMatch, NodeId, Patch, no_match};

pub(super) const TRANSPOSE_OF_CONSTANT: Rule = Rule {
    name: "transpose-of-constant",
    help: "use a transposed view of a constant matrix instead of its Transpose",
    root: "Transpose",
    apply,
};

fn apply(m: &Model, node: NodeId) -> Result<Patch, NoMatch> {
    let value = m.operand(node, 0)?;
    let tensor = super::transposed(m, value)?;
    match m.ints_attr(node, "perm") {
        None | Some([1, 0]) => super::bypass_by_constant(m, node, &m.value(value).name, tensor),
        Some([0, 1]) => super::bypass(m, node, value),
        Some(perm) => Err(no_match!("`perm` is {perm:?}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;
    use onnxq_ir::tensor::Tensor;

    #[test]
    fn the_weight_is_not_copied() {
        let mut b = Builder::new();
        let (x, w) = (b.input("x", "3,3"), b.floats("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]));
        let place = b.model.constant(w).unwrap().place();
        let t = b.node("Transpose", &[w]);
        let y = b.node("MatMul", &[x, t]);
        b.output(y, "y");
        assert_eq!(b.run("transpose-of-constant").0, 1);
        let w = b.constant_at(0, 1);
        assert_eq!((&w.shape[..], w.place()), (&[3, 2][..], place));
    }

    #[test]
    fn other_ranks_are_left_alone() {
        let mut b = Builder::new();
        let w = b.constant("w", Tensor::from_f32(&[1, 2, 1], [1., 2.]));
        let t = b.node("Transpose", &[w]);
        let y = b.node("Relu", &[t]);
        b.output(y, "y");
        b.misses("transpose-of-constant", "`w` is no matrix (float[1, 2, 1])");
    }
}
