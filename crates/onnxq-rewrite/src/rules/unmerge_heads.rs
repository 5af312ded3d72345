//! Products of heads that were merged with the batch for it take both apart.
//!
//! ```text
//! Reshape(MatMul(Reshape(q, [b·h, s, d]), Transpose(Reshape(k, [b·h, t, d]))), [b, h, s, t])
//!     →      MatMul(q, Transpose(k))
//! ```
//!
//! Between the product and the last `Reshape` may be a scale and a sum with what was merged as well:
//! `baddbmm` of BLOOM, which adds a bias for the distance of each key (ALiBi, Press et al.,
//! <https://arxiv.org/abs/2108.12409>). `fuse-attention` knows the result.

use super::{heads::unscaled, number, of_type, one_of, pair, same_graph};
use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, User, ValueId, no_match,
    tensor::{DType, Dim, Tensor},
};

pub(super) const UNMERGE_HEADS: Rule = Rule {
    name: "unmerge-heads",
    help: "remove the Reshape before and after a MatMul that merges heads with the batch",
    root: "Reshape",
    apply,
};

fn apply(m: &Model, reshape: NodeId) -> Result<Patch, NoMatch> {
    let heads = Heads::of(m, reshape)?;
    let merged = m.operand(reshape, 0)?;
    let (product, bias) = match m.producer(merged, "Add") {
        Ok(add) => {
            let (a, b) = pair(m, add)?;
            let (product, bias) = one_of(m, a, b, |it| heads.product(it))?;
            (product, Some(heads.bias(bias)?))
        }
        Err(_) => (heads.product(merged)?, None),
    };
    same_graph(m, product.matmul, reshape)?;
    if bias.is_some() {
        m.only_use(m.node(product.top).output())?;
    }
    only_for(m, merged, reshape)?;
    emit(m, reshape, &product, bias)
}

/// Batch and heads of values that were `[batch, heads, …]` and became `[n, …]`.
///
/// All else of both shapes is the same, and a reshape keeps the number of elements, so `n` is
/// `batch · heads`, and element by element they are the same; unless there are none.
struct Heads<'a> {
    m: &'a Model,
    /// The node that takes the two apart.
    end: NodeId,
    batch: &'a Dim,
    heads: &'a Dim,
}

/// `MatMul(a, b) · factor`, of heads and batch apart.
struct Product {
    a: Side,
    b: Side,
    factor: f32,
    matmul: NodeId,
    /// The last node, which computes what is scaled.
    top: NodeId,
}

/// `[batch, heads, rows, columns]`, or its transpose.
#[derive(Clone, Copy)]
struct Side {
    value: ValueId,
    transposed: bool,
}

/// `[batch, heads, rows, columns]`, or `[batch, heads, columns]` for one row; times the factor.
struct Bias {
    value: ValueId,
    one_row: bool,
    factor: f32,
}

impl<'a> Heads<'a> {
    fn of(m: &'a Model, end: NodeId) -> Result<Heads<'a>, NoMatch> {
        let (x, y) = (m.operand(end, 0)?, m.node(end).output());
        match (&m.shape(x)?[..], &m.shape(y)?[..]) {
            ([_, a, b], [batch, heads, c, d]) if a.surely_equals(c) && b.surely_equals(d) => {
                Ok(Heads { m, end, batch, heads })
            }
            _ => Err(no_match!("`{}` takes no batch and heads apart", m.value(y).name)),
        }
    }

    fn product(&self, value: ValueId) -> Result<Product, NoMatch> {
        let m = self.m;
        let (product, factor) = unscaled(m, value);
        of_type(m, product, &[DType::F32, DType::F16])?;
        let matmul = m.producer(product, "MatMul")?;
        let (a, b) = pair(m, matmul)?;
        let (a, b) = (self.side(a)?, self.side(b)?);
        let mut top = matmul;
        while m.node(top).output() != value {
            top = m.only_use(m.node(top).output())?;
        }
        Ok(Product { a, b, factor, matmul, top })
    }

    fn side(&self, value: ValueId) -> Result<Side, NoMatch> {
        let Ok(transpose) = self.m.producer(value, "Transpose") else {
            return Ok(Side { value: self.apart(value)?, transposed: false });
        };
        match self.m.ints_attr(transpose, "perm") {
            Some([0, 2, 1]) => {
                let value = self.apart(self.m.operand(transpose, 0)?)?;
                Ok(Side { value, transposed: true })
            }
            it => Err(no_match!("`{}` is transposed by {it:?}", self.m.value(value).name)),
        }
    }

    fn bias(&self, value: ValueId) -> Result<Bias, NoMatch> {
        let (value, factor) = unscaled(self.m, value);
        let reason = match self.apart(value) {
            Ok(value) => return Ok(Bias { value, one_row: false, factor }),
            Err(it) => it,
        };
        let (x, shape) = self.reshaped(value)?;
        match (&self.m.shape(x)?[..], shape) {
            ([batch, heads, a], [_, Dim::Fixed(1), b])
                if self.are(batch, heads) && a.surely_equals(b) =>
            {
                Ok(Bias { value: x, one_row: true, factor })
            }
            _ => Err(reason),
        }
    }

    /// The `[batch, heads, rows, columns]` that `merged` is a reshape of.
    fn apart(&self, merged: ValueId) -> Result<ValueId, NoMatch> {
        let (x, shape) = self.reshaped(merged)?;
        match (&self.m.shape(x)?[..], shape) {
            ([batch, heads, a, b], [_, c, d])
                if self.are(batch, heads) && a.surely_equals(c) && b.surely_equals(d) =>
            {
                Ok(x)
            }
            _ => Err(no_match!("`{}` merges no batch and heads", self.m.value(merged).name)),
        }
    }

    /// What a reshaped value was before, and its shape now.
    fn reshaped(&self, value: ValueId) -> Result<(ValueId, &'a [Dim]), NoMatch> {
        let reshape = self.m.producer(value, "Reshape")?;
        same_graph(self.m, reshape, self.end)?;
        Ok((self.m.operand(reshape, 0)?, self.m.shape(value)?))
    }

    fn are(&self, batch: &Dim, heads: &Dim) -> bool {
        batch.surely_equals(self.batch) && heads.surely_equals(self.heads)
    }
}

/// Nobody needs `merged` but `reshape`, and nodes that compute its target of the sizes of `merged`.
fn only_for(m: &Model, merged: ValueId, reshape: NodeId) -> Result<(), NoMatch> {
    const MOST: usize = 16;
    let (mut nodes, mut work) = (vec![reshape], vec![merged]);
    while let Some(value) = work.pop() {
        for it in &m.value(value).uses {
            let User::Node(user) = it.user else {
                return Err(no_match!("`{}` is an output of a graph", m.value(value).name));
            };
            if nodes.contains(&user) {
                continue;
            }
            if nodes.len() == MOST {
                return Err(no_match!("`{}` has other uses", m.value(merged).name));
            }
            nodes.push(user);
            work.extend(&m.node(user).outputs);
        }
    }
    Ok(())
}

fn emit(
    m: &Model,
    reshape: NodeId,
    product: &Product,
    bias: Option<Bias>,
) -> Result<Patch, NoMatch> {
    let mut patch = Patch::before(reshape);
    let (matmul, attrs) = (m.node(product.matmul), Attrs::default());
    let dtype = m.dtype(matmul.output()).unwrap_or(DType::F32);
    let sides = [product.a, product.b].map(|it| it.emit(m, &mut patch));
    let name = &m.value(matmul.output()).name;
    let new = patch.named(&matmul.name, name, "MatMul", sides, attrs.clone());
    let mut new = scaled(&mut patch, new, product.factor, dtype)?;
    if let Some(bias) = bias {
        let mut value = bias.value.into();
        if bias.one_row {
            let shape = patch.constant("row_shape", Tensor::from_i64(&[4], [0, 0, 1, -1]));
            value = patch.step("bias_row", "Reshape", [value, shape], attrs.clone());
        }
        let value = scaled(&mut patch, value, bias.factor, dtype)?;
        new = patch.node(&m.node(reshape).name, "Add", [new, value], attrs);
    }
    Ok(patch.replace(m.node(reshape).output(), new))
}

impl Side {
    fn emit(self, m: &Model, patch: &mut Patch) -> Ref {
        if !self.transposed {
            return self.value.into();
        }
        let name = format!("{}_transposed", m.value(self.value).name);
        let perm = Attrs::default().with("perm", vec![0i64, 1, 3, 2]);
        patch.step(&name, "Transpose", [self.value.into()], perm)
    }
}

fn scaled(patch: &mut Patch, value: Ref, factor: f32, dtype: DType) -> Result<Ref, NoMatch> {
    if factor == 1.0 {
        return Ok(value);
    }
    let factor = number(patch, "scale", factor, dtype)?;
    Ok(patch.step("scaled", "Mul", [value, factor], Attrs::default()))
}
