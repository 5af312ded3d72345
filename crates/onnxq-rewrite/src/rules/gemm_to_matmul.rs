//! `Gemm` with a constant weight becomes `MatMul` and `Add`, so that weights have one form.
//!
//! ```text
//! Gemm <alpha, beta, transA, transB> (a, b, c)      →      Add(MatMul(aᵀ?, alpha·bᵀ?), beta·c)
//! ```

use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{Tensor, from_f32},
};

pub(super) const GEMM_TO_MATMUL: Rule = Rule {
    name: "gemm-to-matmul",
    help: "write Gemm with a constant weight as MatMul and Add",
    root: "Gemm",
    apply,
};

fn apply(m: &Model, gemm: NodeId) -> Result<Patch, NoMatch> {
    if m.opset("") < 7 {
        return Err(no_match!("Gemm of opset {} broadcasts by attribute", m.opset("")));
    }
    let (a, b) = (m.operand(gemm, 0)?, m.operand(gemm, 1)?);
    let weight = weight(m, gemm, b)?;
    let (alpha, beta) = (m.float_attr(gemm, "alpha", 1.0), m.float_attr(gemm, "beta", 1.0));
    if alpha != 1.0 || !matches!(beta, 0.0 | 1.0) {
        super::scalable(&weight)?;
    }
    // Runtimes do not read an input that is multiplied by zero.
    let bias = m.node(gemm).inputs.get(2).copied().flatten().filter(|_| beta != 0.0);
    if let Some(it) = bias {
        broadcasts(m, it, weight.shape[1])?;
    }

    let name = super::stem(m, gemm);
    let mut to = Writer { m, patch: Patch::before(gemm), name: &name };
    let a = if m.int_attr(gemm, "transA", 0) == 0 { a.into() } else { to.transpose(a) };
    let is_view = weight.is_transposed() != m.constant(b)?.is_transposed();
    let (w, rest) = match m.only_use(b) {
        // A second copy of a shared weight would cost more than a multiplication.
        Ok(_) if alpha != 1.0 => {
            (to.patch.constant(&m.value(b).name, super::scaled(&weight, move |_| alpha)), 1.0)
        }
        _ if is_view => (to.patch.constant(&m.value(b).name, weight.clone()), alpha),
        _ => (b.into(), alpha),
    };
    let mut y = to.patch.node(&name, "MatMul", [a, w], Attrs::default());
    y = to.times(y, rest, &weight)?;
    if let Some(bias) = bias {
        let bias = to.bias(bias, beta, &weight)?;
        y = to.patch.node(&format!("{name}.add"), "Add", [y, bias], Attrs::default());
    }
    Ok(to.patch.replace(m.node(gemm).output(), y))
}

/// The constant `[k, n]` weight.
fn weight(m: &Model, gemm: NodeId, b: ValueId) -> Result<Tensor, NoMatch> {
    if m.int_attr(gemm, "transB", 0) != 0 {
        return super::transposed(m, b);
    }
    let tensor = m.constant(b)?;
    if tensor.shape.len() != 2 {
        return Err(no_match!("`{}` is no matrix ({tensor:?})", m.value(b).name));
    }
    Ok(tensor.clone())
}

/// Gemm lets its bias grow to the result; Add would let the result grow to the bias.
fn broadcasts(m: &Model, bias: ValueId, columns: usize) -> Result<(), NoMatch> {
    let it = m.value(bias);
    let Some(ty) = &it.ty else { return Ok(()) };
    let shape = ty.shape.as_deref().unwrap_or(&[]);
    let last = shape.last().and_then(|it| it.fixed()).unwrap_or(1);
    if shape.len() <= 2 && (last == 1 || last == columns) {
        return Ok(());
    }
    Err(no_match!("`{}` ({ty}) does not broadcast to {columns} columns", it.name))
}

struct Writer<'a> {
    m: &'a Model,
    patch: Patch,
    name: &'a str,
}

impl Writer<'_> {
    fn transpose(&mut self, a: ValueId) -> Ref {
        let attrs = Attrs::default().with("perm", vec![1, 0]);
        self.patch.node(&format!("{}.transpose", self.name), "Transpose", [a.into()], attrs)
    }

    fn bias(&mut self, bias: ValueId, beta: f32, like: &Tensor) -> Result<Ref, NoMatch> {
        match self.m.constant(bias) {
            Ok(tensor) if beta != 1.0 && super::scalable(tensor).is_ok() => {
                let tensor = super::scaled(tensor, move |_| beta);
                Ok(self.patch.constant(&self.m.value(bias).name, tensor))
            }
            _ => self.times(bias.into(), beta, like),
        }
    }

    /// `y` times a number, unless that is one.
    fn times(&mut self, y: Ref, factor: f32, like: &Tensor) -> Result<Ref, NoMatch> {
        if factor == 1.0 {
            return Ok(y);
        }
        let bytes = from_f32(like.dtype, &[factor]).map_err(|err| no_match!("{err}"))?;
        let name = format!("{}.scale", self.name);
        let factor = self.patch.constant(&name, Tensor::new(like.dtype, vec![], bytes));
        Ok(self.patch.node(&name, "Mul", [y, factor], Attrs::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Builder;

    fn model(attrs: Attrs, bias: &[usize]) -> Builder {
        let mut b = Builder::new();
        let x = b.input("x", "3,3");
        let w = b.floats("w", &[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let c = b.floats("c", bias, &vec![1.0; bias.iter().product()]);
        let y = b.node_with("Gemm", &[x, w, c], attrs);
        b.output(y, "y");
        b
    }

    #[test]
    fn a_transposed_weight_becomes_a_view() {
        let mut b = model(Attrs::default().with("transB", 1i64), &[2]);
        let place = b.constant_at(0, 1).place();
        assert_eq!(b.run("gemm-to-matmul").0, 1);
        assert_eq!(b.ops(), ["MatMul", "Add"]);
        let w = b.constant_at(0, 1);
        assert_eq!((&w.shape[..], w.place()), (&[3, 2][..], place));
    }

    #[test]
    fn factors_go_into_the_constants() {
        let attrs = Attrs::default().with("transB", 1i64).with("alpha", 2.0).with("beta", 3.0);
        let mut b = model(attrs.with("transA", 1i64), &[1, 2]);
        assert_eq!(b.run("gemm-to-matmul").0, 1);
        assert_eq!(b.ops(), ["Transpose", "MatMul", "Add"]);
        assert_eq!(b.constant_at(1, 1).to_f32().unwrap(), [2., 8., 4., 10., 6., 12.]);
        assert_eq!(b.constant_at(2, 1).to_f32().unwrap(), [3., 3.]);
    }

    #[test]
    fn a_shared_weight_is_not_copied_for_a_factor() {
        let mut b = model(Attrs::default().with("transB", 1i64).with("alpha", 0.5), &[2]);
        let w = b.model.operand(b.model.nodes()[0], 1).unwrap();
        let z = b.node("Neg", &[w]);
        b.output(z, "z");
        assert_eq!(b.run("gemm-to-matmul").0, 1);
        assert_eq!(b.ops(), ["MatMul", "Mul", "Add", "Neg"]);
        assert!(b.constant_at(0, 1).place().is_some());
    }

    #[test]
    fn a_bias_times_zero_goes() {
        let mut b = model(Attrs::default().with("transB", 1i64).with("beta", 0.0), &[2]);
        b.run("gemm-to-matmul");
        assert_eq!(b.ops(), ["MatMul"]);
    }

    #[test]
    fn a_bias_of_another_width_is_left_alone() {
        let mut b = model(Attrs::default().with("transB", 1i64), &[3]);
        b.misses("gemm-to-matmul", "`c` (float[3]) does not broadcast to 2 columns");
    }

    #[test]
    fn a_computed_weight_is_left_alone() {
        let mut b = Builder::new();
        let x = b.input("x", "2,2");
        let y = b.node("Gemm", &[x, x]);
        b.output(y, "y");
        b.misses("gemm-to-matmul", "`x` is not constant");
    }
}
