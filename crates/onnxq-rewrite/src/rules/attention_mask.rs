//! What hides keys from queries of an attention, whatever the exporter made of it.

use super::{
    heads::{size_of, sized, unscaled},
    one_of, pair, scalar,
};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, ValueId, no_match,
    tensor::{DType, Dim, Tensor},
};

/// A mask of scores, `[batch or 1, heads or 1, length or 1, total]`.
#[derive(Clone, Copy)]
pub(crate) enum Mask {
    None,
    /// Added to the scores.
    Added(ValueId),
    /// Adds nothing where true, and the lowest number elsewhere.
    Seen(ValueId),
    /// The same where false.
    Hidden(ValueId),
}

/// What is masked of `[batch, heads, length, total]`, and the mask.
pub(super) fn masked(m: &Model, it: ValueId) -> Result<(ValueId, Mask), NoMatch> {
    let is_score = |it| m.producer(unscaled(m, it).0, "MatMul").map(|_| it);
    if let Ok(add) = m.producer(it, "Add") {
        let (a, b) = pair(m, add)?;
        let (scores, mask) = one_of(m, a, b, is_score)?;
        return Ok((scores, Mask::of(m, mask)));
    }
    if let Ok(select) = m.producer(it, "Where") {
        let (seen, (a, b)) =
            (m.operand(select, 0)?, (m.operand(select, 1)?, m.operand(select, 2)?));
        return match (lowest(m, b), lowest(m, a)) {
            (true, _) => Ok((is_score(a)?, Mask::Seen(seen))),
            (_, true) => Ok((is_score(b)?, Mask::Hidden(seen))),
            _ => Err(no_match!("`{}` selects between two values", m.value(it).name)),
        };
    }
    Ok((it, Mask::None))
}

/// A score that leaves nothing of its key.
fn lowest(m: &Model, it: ValueId) -> bool {
    scalar(m, it).is_ok_and(|it| it <= -1e4)
}

impl Mask {
    /// A selection between nothing and the lowest number is kept as the selection: its constant
    /// may be infinite, and rows that see no key would not be numbers.
    fn of(m: &Model, mask: ValueId) -> Mask {
        let select = || -> Result<Mask, NoMatch> {
            let select = m.producer(mask, "Where")?;
            let (a, b) = (m.operand(select, 1)?, m.operand(select, 2)?);
            let zero = |it| scalar(m, it).is_ok_and(|it| it == 0.0);
            match () {
                () if zero(a) && lowest(m, b) => Ok(Mask::Seen(m.operand(select, 0)?)),
                () if zero(b) && lowest(m, a) => Ok(Mask::Hidden(m.operand(select, 0)?)),
                () => Err(no_match!("another selection")),
            }
        };
        select().unwrap_or(Mask::Added(mask))
    }

    /// As numbers to add, of shape `[batch or 1, heads or 1, length, total]`.
    pub(crate) fn emit(
        self,
        m: &Model,
        patch: &mut Patch,
        q: ValueId,
    ) -> Result<Option<Ref>, NoMatch> {
        let (value, seen, hidden) = match self {
            Mask::None => return Ok(None),
            Mask::Added(it) => return Ok(Some(stretched(m, patch, it, it.into(), q)?)),
            Mask::Seen(it) => (it, 0.0, f32::MIN),
            Mask::Hidden(it) => (it, f32::MIN, 0.0),
        };
        let dtype = m.dtype(q).unwrap_or(DType::F32);
        let [seen, hidden] = [seen, hidden].map(|it: f32| mask_constant(patch, it, dtype));
        let inputs = [value.into(), seen?, hidden?];
        let mask = patch.step("mask", "Where", inputs, Attrs::default());
        Ok(Some(stretched(m, patch, value, mask, q)?))
    }
}

fn mask_constant(patch: &mut Patch, it: f32, dtype: DType) -> Result<Ref, NoMatch> {
    let it = if dtype == DType::F16 { it.max(-65504.0) } else { it };
    let bytes = onnxq_ir::tensor::from_f32(dtype, &[it]).map_err(|err| no_match!("{err}"))?;
    Ok(patch.constant("mask_value", Tensor::new(dtype, Vec::new(), bytes)))
}

/// A mask like `like`, one row of which may stand for all: the operator wants a row for each.
fn stretched(
    m: &Model,
    patch: &mut Patch,
    like: ValueId,
    mask: Ref,
    q: ValueId,
) -> Result<Ref, NoMatch> {
    let length = &m.shape(q)?[2];
    let name = &m.value(like).name;
    let shape = m.shape(like)?;
    let rows = match &shape[..] {
        [rows, _] | [_, _, rows, _] => rows,
        _ => return Err(no_match!("the mask `{name}` has {} dimensions", shape.len())),
    };
    if shape.last().and_then(Dim::fixed) == Some(1) {
        return Err(no_match!("the mask `{name}` is the same for all keys"));
    }
    if rows.surely_equals(length) {
        return Ok(mask);
    }
    if rows.fixed() != Some(1) {
        return Err(no_match!("the rows of the mask `{name}` ({rows:?}) are not known"));
    }
    let rows = size_of(patch, sized(m, length, (q, 2)));
    let one = patch.constant("one", Tensor::from_i64(&[1], [1]));
    let mut dims = vec![one; shape.len()];
    dims[shape.len() - 2] = rows;
    let dims = patch.step("mask_shape", "Concat", dims, Attrs::default().with("axis", 0i64));
    Ok(patch.step("mask_rows", "Expand", [mask, dims], Attrs::default()))
}
