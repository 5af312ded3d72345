//! A rotary position embedding in single operators becomes one `RotaryEmbedding`.
//!
//! ```text
//! Add(Mul(x, c), Mul(Concat(Neg(high half of x), low half of x), s))      →      RotaryEmbedding(x, c, s)
//! ```
//!
//! `c` and `s` are the cosines and sines of the angles `Concat(f, f)`, computed or from a table;
//! the node takes those of `f` alone. (Su et al., <https://arxiv.org/abs/2104.09864>.)
//!
//! From opset 23 on, with angles for each token of the batch, it is the standard operator, before
//! that `com.microsoft.RotaryEmbedding`.

use super::{
    heads::{Split, size_of, sized, split},
    of_type, one_of, pair, stem,
};
use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Dim, Tensor},
};

pub(super) const FUSE_ROTARY: Rule = Rule {
    name: "fuse-rotary",
    help: "make one RotaryEmbedding of a rotation of halves by cosines and sines",
    root: "Add",
    apply,
};

fn apply(m: &Model, add: NodeId) -> Result<Patch, NoMatch> {
    let (a, b) = pair(m, add)?;
    let (straight, turned) = (m.producer(a, "Mul")?, m.producer(b, "Mul")?);
    let sides = |it| pair(m, it);
    let ((a, b), (c, d)) = (sides(straight)?, sides(turned)?);
    // Which side is turned is seen by its halves.
    let (x, sines, (p, q)) = match one_of(m, c, d, |it| rotated(m, it)) {
        Ok((x, s)) => (x, s, (a, b)),
        Err(reason) => {
            let (x, s) = one_of(m, a, b, |it| rotated(m, it)).map_err(|_| reason)?;
            (x, s, (c, d))
        }
    };
    let cosines = match (p == x, q == x) {
        (true, _) => q,
        (_, true) => p,
        _ => return Err(no_match!("the halves are of another value")),
    };
    let (cosines, sines) = (Angles::of(m, cosines, "Cos")?, Angles::of(m, sines, "Sin")?);
    if !cosines.fits(&sines) {
        return Err(no_match!("cosines and sines are of different angles"));
    }
    emit(m, add, x, &cosines, &sines)
}

/// The `x` of `Concat(-high, low)`, whose halves are slices or parts of a split.
fn rotated(m: &Model, it: ValueId) -> Result<ValueId, NoMatch> {
    let concat = m.producer(it, "Concat")?;
    let rank = m.rank(it).unwrap_or(0) as i64;
    let axis = m.int_attr(concat, "axis", 0);
    if m.node(concat).inputs.len() != 2 || (axis != -1 && axis != rank - 1) {
        return Err(no_match!("the halves are not joined along the last axis"));
    }
    let (negative, low) = pair(m, concat)?;
    let high = m.operand(m.producer(negative, "Neg")?, 0)?;
    let (x, from, to) = part(m, low)?;
    let (other, middle, end) = part(m, high)?;
    let width = m.shape(x)?.last().and_then(Dim::fixed).unwrap_or(0) as i64;
    let halves = from == 0 && to == middle && middle * 2 == width && end >= width;
    if x == other && halves { Ok(x) } else { Err(no_match!("the parts are not two halves")) }
}

/// The whole, the first and the end index along the last axis.
fn part(m: &Model, it: ValueId) -> Result<(ValueId, i64, i64), NoMatch> {
    if let Ok(split) = m.producer(it, "Split") {
        let x = m.operand(split, 0)?;
        let width = m.shape(x)?.last().and_then(Dim::fixed).unwrap_or(0) as i64;
        let axis = m.int_attr(split, "axis", 0);
        let own = m.shape(it)?.last().and_then(Dim::fixed).unwrap_or(0) as i64;
        let last = axis == -1 || Some(axis) == m.rank(x).map(|it| it as i64 - 1);
        return match m.node(split).outputs[..] {
            [a, _] if last && a == it => Ok((x, 0, own)),
            [_, b] if last && b == it => Ok((x, width - own, width)),
            _ => Err(no_match!("the split is not in two along the last axis")),
        };
    }
    let slice = m.producer(it, "Slice")?;
    let x = m.operand(slice, 0)?;
    let one = |index| match m.small_i64(m.operand(slice, index)?)?[..] {
        [it] => Ok(it),
        _ => Err(no_match!("the slice is along several axes")),
    };
    let (from, to, axis) = (one(1)?, one(2)?, one(3)?);
    let last = m.rank(x).map_or(i64::MAX, |it| it as i64 - 1);
    let step = if m.node(slice).inputs.len() > 4 { one(4)? } else { 1 };
    if step != 1 || (axis != -1 && axis != last) {
        return Err(no_match!("the slice is not along the last axis"));
    }
    Ok((x, from, to))
}

/// Cosines or sines that are the same for both halves.
struct Angles {
    source: Source,
    /// By which the results are multiplied.
    scale: f32,
}

enum Source {
    /// Angles `[batch, length, size / 2]`, of which the function is taken.
    Computed(ValueId),
    /// A table `[positions, size]` and the positions `[batch, length]`.
    Table(ValueId, ValueId),
}

impl Angles {
    /// `value` is `[batch, 1, length, size]` or `[batch, length, 1, size]`, or lacks the axis.
    fn of(m: &Model, mut value: ValueId, op: &str) -> Result<Angles, NoMatch> {
        let mut scale = 1.0;
        for _ in 0..4 {
            if let Ok(unsqueeze) = m.producer(value, "Unsqueeze") {
                value = m.operand(unsqueeze, 0)?;
            }
            let (it, by) = super::heads::unscaled(m, value);
            (value, scale) = (it, scale * by);
        }
        if let Ok(gather) = m.producer(value, "Gather") {
            let (table, at) = pair(m, gather)?;
            let same = m.int_attr(gather, "axis", 0) == 0 && halves_are_equal(m, table)?;
            return match same {
                true => Ok(Angles { source: Source::Table(table, at), scale }),
                false => Err(no_match!("the halves of the table differ")),
            };
        }
        let angles = m.operand(m.producer(value, op)?, 0)?;
        let concat = m.producer(angles, "Concat")?;
        let (a, b) = pair(m, concat)?;
        match a == b && m.node(concat).inputs.len() == 2 {
            true => Ok(Angles { source: Source::Computed(a), scale }),
            false => Err(no_match!("the angles of both halves differ")),
        }
    }

    fn fits(&self, other: &Angles) -> bool {
        let same = match (&self.source, &other.source) {
            (Source::Computed(a), Source::Computed(b)) => a == b,
            (Source::Table(_, a), Source::Table(_, b)) => a == b,
            _ => false,
        };
        same && self.scale == other.scale
    }

    /// For how many tokens there are angles.
    fn length(&self, m: &Model, x: ValueId) -> Result<Dim, NoMatch> {
        let dim = match self.source {
            Source::Computed(it) => m.shape(it)?.iter().rev().nth(1),
            Source::Table(_, at) => match &m.shape(at)?[..] {
                [_, length] => Some(length),
                _ => None,
            },
        };
        let name = &m.value(x).name;
        dim.cloned().ok_or_else(|| no_match!("the angles of `{name}` are not for tokens"))
    }

    /// The function of the angles `[batch, length, size / 2]`, or its table `[positions, size / 2]`.
    fn values(&self, m: &Model, patch: &mut Patch, op: &str) -> Result<Ref, NoMatch> {
        let name = op.to_lowercase();
        let it = match self.source {
            Source::Computed(angles) => patch.step(&name, op, [angles.into()], Attrs::default()),
            Source::Table(table, _) => {
                let table = m.constant(table)?;
                let (rows, width) = (table.shape[0], table.shape[1]);
                let values = table.to_f32().map_err(|err| no_match!("{err}"))?;
                let low = values.chunks_exact(width).flat_map(|it| &it[..width / 2]).copied();
                patch.constant(&name, Tensor::from_f32(&[rows, width / 2], low))
            }
        };
        if self.scale == 1.0 {
            return Ok(it);
        }
        let by = patch.constant("scale", Tensor::scalar(self.scale));
        Ok(patch.step(&format!("{name}_scaled"), "Mul", [it, by], Attrs::default()))
    }
}

fn halves_are_equal(m: &Model, table: ValueId) -> Result<bool, NoMatch> {
    let [_, width] = m.constant(table)?.shape[..] else {
        return Err(no_match!("the table is no matrix"));
    };
    if width == 0 || width % 2 != 0 {
        return Err(no_match!("the table is {width} wide"));
    }
    let values = m.small_f32(table)?;
    Ok(values.chunks_exact(width).all(|it| it[..width / 2] == it[width / 2..]))
}

/// The value that is turned.
struct Turned {
    x: ValueId,
    /// What it was before it was transposed or split, if it was.
    heads: Option<Split>,
    /// `[batch, length, heads, size]`, not `[batch, heads, length, size]`.
    rows_first: bool,
    /// Batch and length.
    rows: [Dim; 2],
}

impl Turned {
    /// `angles` are for as many tokens as the value has along one of its axes.
    fn of(m: &Model, x: ValueId, angles: &Dim) -> Result<Turned, NoMatch> {
        let [batch, a, b, _] = &m.shape(x)?[..] else {
            return Err(no_match!("`{}` is not split into heads", m.value(x).name));
        };
        let rows = [batch.clone(), angles.clone()];
        match (a.surely_equals(angles), b.surely_equals(angles)) {
            (false, true) => {
                let heads = Split::of_transposed(m, x).ok();
                Ok(Turned { x, heads, rows_first: false, rows })
            }
            (true, false) => {
                Ok(Turned { x, heads: Some(Split::of(m, x)?), rows_first: true, rows })
            }
            _ => Err(no_match!("the tokens of `{}` are not those of the angles", m.value(x).name)),
        }
    }

    /// Where batch and length are sizes of `x`.
    fn axes(&self) -> [usize; 2] {
        [0, if self.rows_first { 1 } else { 2 }]
    }

    fn input(&self, m: &Model, patch: &mut Patch) -> Ref {
        self.heads.map_or(self.x.into(), |it| it.flat(m, patch))
    }

    /// The result in the place of the original one.
    fn finish(&self, m: &Model, add: NodeId, mut patch: Patch, y: Ref) -> Patch {
        let output = m.node(add).output();
        let Some(heads) = self.heads else { return patch.replace(output, y) };
        let name = stem(m, add);
        let y = split(&mut patch, &format!("{name}_heads"), y, heads.heads, heads.size);
        if self.rows_first {
            return patch.replace(output, y);
        }
        let perm = Attrs::default().with("perm", vec![0i64, 2, 1, 3]);
        let y = patch.step(&format!("{name}_transposed"), "Transpose", [y], perm);
        patch.replace(output, y)
    }
}

fn emit(
    m: &Model,
    add: NodeId,
    x: ValueId,
    cosines: &Angles,
    sines: &Angles,
) -> Result<Patch, NoMatch> {
    of_type(m, x, &[DType::F32, DType::F16])?;
    let turned = Turned::of(m, x, &cosines.length(m, x)?)?;
    let mut patch = Patch::before(add);
    let (cos, sin) = (cosines.values(m, &mut patch, "Cos")?, sines.values(m, &mut patch, "Sin")?);
    let per_token = match cosines.source {
        Source::Computed(it) => match &m.shape(it)?[..] {
            [batch, _, _] => batch.surely_equals(&turned.rows[0]),
            _ => false,
        },
        Source::Table(_, at) => m.shape(at)?[0].surely_equals(&turned.rows[0]),
    };
    if matches!(cosines.source, Source::Table(..)) && !per_token {
        return Err(no_match!("the positions are not for each sequence of the batch"));
    }
    let standard = m.opset("") >= 23 && per_token;
    let positions = match cosines.source {
        Source::Table(_, at) => Some((at.into(), cos, sin)),
        Source::Computed(_) if standard => None,
        Source::Computed(angles) => Some(rows(m, &mut patch, &turned, angles, (cos, sin))?),
    };
    let input = turned.input(m, &mut patch);
    let name = stem(m, add);
    let y = if standard {
        let heads = turned.heads.map(|it| it.heads as i64);
        let attrs = heads.map_or_else(Attrs::default, |it| Attrs::default().with("num_heads", it));
        let mut inputs = vec![input, cos, sin];
        inputs.extend(positions.map(|it| it.0));
        patch.node(&name, "RotaryEmbedding", inputs, attrs)
    } else {
        let Some((at, cos, sin)) = positions else { unreachable!("made for this operator") };
        let inputs = [input, at, cos, sin];
        patch.node(&name, "com.microsoft.RotaryEmbedding", inputs, Attrs::default())
    };
    Ok(turned.finish(m, add, patch, y))
}

/// Angles `[batch or 1, length, size / 2]`, or without a batch, as a table, and the row of each token.
fn rows(
    m: &Model,
    patch: &mut Patch,
    turned: &Turned,
    angles: ValueId,
    (cos, sin): (Ref, Ref),
) -> Result<(Ref, Ref, Ref), NoMatch> {
    let [before @ .., _, half] = &m.shape(angles)?[..] else {
        return Err(no_match!("the angles are not [length, size / 2]"));
    };
    let Some(half) = half.fixed() else {
        return Err(no_match!("the number of angles is not known"));
    };
    let one = before.iter().all(|it| it.fixed() == Some(1));
    if !one && !matches!(before, [it] if it.surely_equals(&turned.rows[0])) {
        return Err(no_match!("the batch of the angles is not known"));
    }
    if !one && m.opset("") < 15 {
        return Err(no_match!("angles for each token need opset 15"));
    }
    let table = patch.constant("table", Tensor::from_i64(&[2], [-1, half as i64]));
    let cos = patch.step("cos_rows", "Reshape", [cos, table], Attrs::default());
    let sin = patch.step("sin_rows", "Reshape", [sin, table], Attrs::default());
    if one {
        // The first row is that of the first token, whatever the sequence.
        return Ok((patch.constant("first_row", Tensor::from_i64(&[1], [0])), cos, sin));
    }
    let axes = turned.axes();
    let [batch, length] = [0, 1].map(|i| sized(m, &turned.rows[i], (turned.x, axes[i])));
    let [batch, length] = [size_of(patch, batch), size_of(patch, length)];
    let attrs = Attrs::default();
    let shape = patch.step("rows", "Concat", [batch, length], attrs.clone().with("axis", 0i64));
    let keep = attrs.clone().with("keepdims", 0i64);
    let count = patch.step("tokens", "ReduceProd", [shape], keep);
    let [from, step] = [0, 1].map(|it| patch.constant("bound", Tensor::from_i64(&[], [it])));
    let range = patch.step("row", "Range", [from, count, step], attrs.clone());
    Ok((patch.step("row_of_token", "Reshape", [range, shape], attrs), cos, sin))
}
