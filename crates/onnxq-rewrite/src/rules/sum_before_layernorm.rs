//! A residual `Add` that feeds a `LayerNormalization` becomes a `Sum`.
//!
//! ONNX Runtime fuses `Add` and `LayerNormalization` into a kernel that is six times slower on a
//! CPU than the two of them. It does not look for `Sum`, which computes the same.
//!
//! ```text
//! LayerNormalization(Add(a, b), s, t)      →      LayerNormalization(Sum(a, b), s, t)
//! ```

use crate::Rule;
use onnxq_ir::{Attrs, Model, NoMatch, NodeId, Patch, Use, User, ValueId, no_match};

pub(super) const SUM_BEFORE_LAYERNORM: Rule = Rule {
    name: "sum-before-layernorm",
    help: "keep ONNX Runtime from fusing a residual Add into its slow SkipLayerNormalization",
    root: "Add",
    apply,
};

fn apply(m: &Model, add: NodeId) -> Result<Patch, NoMatch> {
    let y = m.node(add).output();
    if !m.value(y).uses.iter().any(|it| is_layernorm(m, y, *it)) {
        return Err(no_match!("`{}` feeds no LayerNormalization", m.value(y).name));
    }
    if m.opset("") < 8 {
        return Err(no_match!("Sum of opset {} does not broadcast", m.opset("")));
    }
    let (a, b) = (m.operand(add, 0)?, m.operand(add, 1)?);
    if let Some(it) = [a, b].into_iter().find(|it| m.constant(*it).is_ok()) {
        return Err(no_match!("`{}` is constant, so this is no residual", m.value(it).name));
    }
    if differ(m, a, b) {
        return Err(no_match!("the operands have different shapes, which are not fused"));
    }
    let mut patch = Patch::before(add);
    let sum = patch.node(&super::stem(m, add), "Sum", [a.into(), b.into()], Attrs::default());
    Ok(patch.replace(y, sum))
}

/// Whether this use of `x` is a normalisation, or begins one that is written out: `x - mean(x)`.
fn is_layernorm(m: &Model, x: ValueId, it: Use) -> bool {
    let (User::Node(user), 0) = (it.user, it.index) else { return false };
    let op = &m.node(user).op;
    if !op.is("Sub") {
        return op.is("LayerNormalization");
    }
    let mean = m.operand(user, 1).and_then(|it| m.producer(it, "ReduceMean"));
    mean.and_then(|it| m.operand(it, 0)) == Ok(x)
}

/// Surely so: where we cannot tell, ONNX Runtime may, and `Sum` is right in any case.
fn differ(m: &Model, a: ValueId, b: ValueId) -> bool {
    let shape = |it| m.value(it).ty.as_ref().and_then(|it| it.shape.as_deref());
    let (Some(a), Some(b)) = (shape(a), shape(b)) else { return false };
    let fixed = |(a, b): (&onnxq_ir::tensor::Dim, &onnxq_ir::tensor::Dim)| {
        a.fixed().zip(b.fixed()).is_some_and(|(a, b)| a != b)
    };
    a.len() != b.len() || a.iter().zip(b).any(fixed)
}

#[cfg(test)]
mod tests {
    use crate::testing::Builder;

    /// `LayerNormalization(MatMul(x, w) + bias + r)` with a second use of the last sum.
    fn model(residual: &str) -> Builder {
        let mut b = Builder::new();
        let (x, r) = (b.input("x", "n,4"), b.input("r", residual));
        let (w, s) = (b.floats("w", &[4, 4], &[1.; 16]), b.floats("s", &[4], &[1.; 4]));
        let h = b.node("MatMul", &[x, w]);
        let h = b.node("Add", &[h, s]);
        b.model.set_type(h, b.model.value(x).ty.clone().unwrap());
        let h = b.node("Add", &[h, r]);
        let y = b.node("LayerNormalization", &[h, s]);
        b.output(h, "h");
        b.output(y, "y");
        b
    }

    #[test]
    fn only_the_residual_changes_also_with_other_uses() {
        let mut b = model("n,4");
        let (changes, lines) = b.run("sum-before-layernorm");
        assert_eq!(changes, 1, "{lines:?}");
        assert_eq!(b.ops(), ["MatMul", "Add", "Sum", "LayerNormalization"]);
        assert!(lines[1].ends_with("feeds no LayerNormalization"), "{lines:?}");
    }

    #[test]
    fn a_broadcast_is_not_fused_anyway() {
        let mut b = model("4");
        let (changes, lines) = b.run("sum-before-layernorm");
        assert_eq!(changes, 0);
        assert!(lines[1].contains("different shapes"), "{lines:?}");
    }

    #[test]
    fn a_bias_is_no_residual() {
        let mut b = Builder::new();
        let (x, s) = (b.input("x", "n,4"), b.floats("s", &[4], &[1.; 4]));
        let h = b.node("Add", &[x, s]);
        let y = b.node("LayerNormalization", &[h, s]);
        b.output(y, "y");
        b.misses("sum-before-layernorm", "`s` is constant, so this is no residual");
    }

    #[test]
    fn a_normalisation_that_is_written_out_counts() {
        let mut b = Builder::new();
        let x = b.input("x", "n,4");
        let h = b.node("Add", &[x, x]);
        let mean = b.node("ReduceMean", &[h]);
        let y = b.node("Sub", &[h, mean]);
        b.output(y, "y");
        assert_eq!(b.run("sum-before-layernorm").0, 1);
    }
}
