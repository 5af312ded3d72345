//! What rules about attention share: values that are split into heads, and how they were before.

use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, ValueId, no_match,
    tensor::{Dim, Tensor},
};

/// A value of shape `[batch, length, heads, size]`, or what it was before it was split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    /// `[batch, length, heads · size]`, if the model has it.
    flat: Option<ValueId>,
    /// `[batch, length, heads, size]`.
    value: ValueId,
    pub heads: usize,
    pub size: usize,
}

impl Split {
    /// What `x` of shape `[batch, heads, length, size]` is transposed from.
    pub(super) fn of_transposed(m: &Model, x: ValueId) -> Result<Split, NoMatch> {
        let transpose = m.producer(x, "Transpose")?;
        match m.ints_attr(transpose, "perm") {
            Some([0, 2, 1, 3]) => Split::of(m, m.operand(transpose, 0)?),
            it => Err(no_match!("`{}` is transposed by {it:?}", m.value(x).name)),
        }
    }

    /// `value` of shape `[batch, length, heads, size]`.
    pub(super) fn of(m: &Model, value: ValueId) -> Result<Split, NoMatch> {
        let name = &m.value(value).name;
        let [batch, length, heads, size] = &m.shape(value)?[..] else {
            return Err(no_match!("`{name}` is not split into heads"));
        };
        let (Some(heads), Some(size)) = (heads.fixed(), size.fixed()) else {
            return Err(no_match!("the heads of `{name}` are not known"));
        };
        let flat = m.producer(value, "Reshape").and_then(|it| m.operand(it, 0)).ok();
        let flat = flat.filter(|it| match m.shape(*it).map(|it| &it[..]) {
            Ok([b, l, hidden]) => {
                let same = |a: &Dim, b: &Dim| a.surely_equals(b);
                same(b, batch) && same(l, length) && hidden.fixed() == Some(heads * size)
            }
            _ => false,
        });
        Ok(Split { flat, value, heads, size })
    }

    /// The value as `[batch, length, heads · size]`.
    pub(super) fn flat(&self, m: &Model, patch: &mut Patch) -> Ref {
        if let Some(it) = self.flat {
            return it.into();
        }
        let hidden = (self.heads * self.size) as i64;
        let shape = patch.constant("flat_shape", Tensor::from_i64(&[3], [0, 0, hidden]));
        let name = format!("{}_flat", m.value(self.value).name);
        patch.step(&name, "Reshape", [self.value.into(), shape], Attrs::default())
    }
}

/// `x` of shape `[batch, length, heads · size]` as `[batch, length, heads, size]`.
pub(super) fn split(patch: &mut Patch, name: &str, x: Ref, heads: usize, size: usize) -> Ref {
    let dims = [0, 0, heads as i64, size as i64];
    let shape = patch.constant("split_shape", Tensor::from_i64(&[4], dims));
    patch.step(name, "Reshape", [x, shape], Attrs::default())
}

/// A value whose size along an axis is `dim`, best an input of the model: its size costs one node.
pub(crate) fn sized(m: &Model, dim: &Dim, otherwise: (ValueId, usize)) -> (ValueId, usize) {
    let inputs = &m.graph(m.main).inputs;
    let found = inputs.iter().find_map(|it| {
        let shape = m.shape(*it).ok()?;
        Some((*it, shape.iter().position(|it| it.surely_equals(dim))?))
    });
    found.unwrap_or(otherwise)
}

/// The size along an axis, as a tensor with one element.
pub(crate) fn size_of(patch: &mut Patch, (value, axis): (ValueId, usize)) -> Ref {
    let attrs = Attrs::default().with("start", axis as i64).with("end", axis as i64 + 1);
    patch.step("size", "Shape", [value.into()], attrs)
}

/// A value before the constants that it is multiplied and divided by, and what they come to.
pub(super) fn unscaled(m: &Model, mut value: ValueId) -> (ValueId, f32) {
    let mut factor = 1.0;
    // A model cannot nest scales deeper than it has nodes; three are plenty.
    for _ in 0..3 {
        let scaled = |op: &str| -> Result<(ValueId, f32), NoMatch> {
            let node = m.producer(value, op)?;
            let (a, b) = super::pair(m, node)?;
            match super::scalar(m, b) {
                Ok(it) => Ok((a, it)),
                Err(_) if op == "Mul" => Ok((b, super::scalar(m, a)?)),
                Err(reason) => Err(reason),
            }
        };
        (value, factor) = match (scaled("Mul"), scaled("Div")) {
            (Ok((it, by)), _) => (it, factor * by),
            (_, Ok((it, by))) => (it, factor / by),
            _ => break,
        };
    }
    (value, factor)
}
