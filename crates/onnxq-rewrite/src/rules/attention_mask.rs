//! What hides keys from queries of an attention, whatever the exporter made of it.

use super::{
    heads::{size_of, sized, unscaled},
    number, one_of, pair, scalar,
};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, ValueId, no_match,
    tensor::{DType, Dim, Tensor},
};

/// A mask of scores, `[batch or 1, heads or 1, length or 1, total]`, and what is added beside it.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    kind: Kind,
    /// What says how far keys are (ALiBi), of such a shape too.
    bias: Option<ValueId>,
}

#[derive(Clone, Copy)]
enum Kind {
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
    if let Ok(add) = m.producer(it, "Add") {
        let (a, b) = pair(m, add)?;
        let ((scores, bias), mask) = one_of(m, a, b, |it| Ok((is_score(m, it)?, None)))
            .or_else(|_| one_of(m, a, b, |it| biased(m, it)))?;
        return Ok((scores, Mask { kind: Kind::of(m, mask), bias }));
    }
    if let Ok(select) = m.producer(it, "Where") {
        let (seen, (a, b)) =
            (m.operand(select, 0)?, (m.operand(select, 1)?, m.operand(select, 2)?));
        let (value, kind) = match (lowest(m, b), lowest(m, a)) {
            (true, _) => (a, Kind::Seen(seen)),
            (_, true) => (b, Kind::Hidden(seen)),
            _ => return Err(no_match!("`{}` selects between two values", m.value(it).name)),
        };
        let (scores, bias) = biased(m, value)?;
        return Ok((scores, Mask { kind, bias }));
    }
    Ok((it, Mask { kind: Kind::None, bias: None }))
}

fn is_score(m: &Model, value: ValueId) -> Result<ValueId, NoMatch> {
    m.producer(unscaled(m, value).0, "MatMul").map(|_| value)
}

/// Scores, and what is added to them before they are masked.
fn biased(m: &Model, value: ValueId) -> Result<(ValueId, Option<ValueId>), NoMatch> {
    let Ok(add) = m.producer(value, "Add") else { return Ok((is_score(m, value)?, None)) };
    let (a, b) = pair(m, add)?;
    let (scores, bias) = one_of(m, a, b, |it| is_score(m, it))?;
    // The lowest float16 and a bias are infinite together, which a score no longer undoes.
    match m.dtype(value) {
        Some(DType::F32) => Ok((scores, Some(bias))),
        _ => Err(no_match!("a mask and a bias that are not float32 may overflow")),
    }
}

/// A score that leaves nothing of its key.
fn lowest(m: &Model, it: ValueId) -> bool {
    scalar(m, it).is_ok_and(|it| it <= -1e4)
}

impl Kind {
    /// A selection between nothing and the lowest number is kept as the selection: its constant
    /// may be infinite, and rows that see no key would not be numbers.
    fn of(m: &Model, mask: ValueId) -> Kind {
        let select = || -> Result<Kind, NoMatch> {
            let select = m.producer(mask, "Where")?;
            let (a, b) = (m.operand(select, 1)?, m.operand(select, 2)?);
            let zero = |it| scalar(m, it).is_ok_and(|it| it == 0.0);
            match () {
                () if zero(a) && lowest(m, b) => Ok(Kind::Seen(m.operand(select, 0)?)),
                () if zero(b) && lowest(m, a) => Ok(Kind::Hidden(m.operand(select, 0)?)),
                () => Err(no_match!("another selection")),
            }
        };
        select().unwrap_or(Kind::Added(mask))
    }
}

impl Mask {
    /// As numbers to add, of shape `[batch or 1, heads or 1, length, total]`.
    pub(crate) fn emit(
        self,
        m: &Model,
        patch: &mut Patch,
        q: ValueId,
    ) -> Result<Option<Ref>, NoMatch> {
        let (value, seen, hidden) = match self.kind {
            Kind::None => return Ok(None),
            Kind::Added(it) => return Ok(Some(self.whole(m, patch, (it, it.into()), q)?)),
            Kind::Seen(it) => (it, 0.0, f32::MIN),
            Kind::Hidden(it) => (it, f32::MIN, 0.0),
        };
        let dtype = m.dtype(q).unwrap_or(DType::F32);
        let [seen, hidden] = [seen, hidden].map(|it: f32| mask_constant(patch, it, dtype));
        let inputs = [value.into(), seen?, hidden?];
        let mask = patch.step("mask", "Where", inputs, Attrs::default());
        Ok(Some(self.whole(m, patch, (value, mask), q)?))
    }

    /// A mask like `like` with the bias. One row may stand for all; the operator wants each.
    fn whole(
        self,
        m: &Model,
        patch: &mut Patch,
        (like, mask): (ValueId, Ref),
        q: ValueId,
    ) -> Result<Ref, NoMatch> {
        let (mut sum, mut rank) = (mask, m.shape(like)?.len());
        let mut has_rows = has_rows(m, like, q)?;
        if let Some(it) = self.bias {
            has_rows |= self::has_rows(m, it, q)?;
            rank = rank.max(m.shape(it)?.len());
            has_heads(m, it, q)?;
            sum = patch.step("bias_and_mask", "Add", [it.into(), mask], Attrs::default());
        }
        // The operator would not know whether three begin with the batch or the heads.
        if rank == 3 {
            return Err(no_match!("the mask `{}` has 3 dimensions", m.value(like).name));
        }
        if has_rows {
            return Ok(sum);
        }
        let rows = size_of(patch, sized(m, &m.shape(q)?[2], (q, 2)));
        let one = patch.constant("one", Tensor::from_i64(&[1], [1]));
        let mut dims = vec![one; rank];
        dims[rank - 2] = rows;
        let dims = patch.step("mask_shape", "Concat", dims, Attrs::default().with("axis", 0i64));
        Ok(patch.step("mask_rows", "Expand", [sum, dims], Attrs::default()))
    }
}

fn mask_constant(patch: &mut Patch, it: f32, dtype: DType) -> Result<Ref, NoMatch> {
    let it = if dtype == DType::F16 { it.max(-65504.0) } else { it };
    number(patch, "mask_value", it, dtype)
}

/// The bias has batch and heads of the query, or one for all.
fn has_heads(m: &Model, bias: ValueId, q: ValueId) -> Result<(), NoMatch> {
    let fits = |(a, b): (&Dim, &Dim)| a.fixed() == Some(1) || a.surely_equals(b);
    let before = m.shape(bias)?.iter().rev().skip(2);
    match before.zip(m.shape(q)?.iter().rev().skip(2)).all(fits) {
        true => Ok(()),
        false => Err(no_match!("the bias `{}` may be of other heads", m.value(bias).name)),
    }
}

/// Whether the mask has a row for each query, not one for all.
fn has_rows(m: &Model, mask: ValueId, q: ValueId) -> Result<bool, NoMatch> {
    let name = &m.value(mask).name;
    let shape = m.shape(mask)?;
    let rows = match &shape[..] {
        [rows, _] | [_, rows, _] | [_, _, rows, _] => rows,
        _ => return Err(no_match!("the mask `{name}` has {} dimensions", shape.len())),
    };
    if shape.last().and_then(Dim::fixed) == Some(1) {
        return Err(no_match!("the mask `{name}` is the same for all keys"));
    }
    match rows.surely_equals(&m.shape(q)?[2]) {
        true => Ok(true),
        false if rows.fixed() == Some(1) => Ok(false),
        false => Err(no_match!("the rows of the mask `{name}` ({rows:?}) are not known")),
    }
}
