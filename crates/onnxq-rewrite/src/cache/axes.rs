//! Where the axis of tokens is after an operator, for those that move it.

use super::tokens::{
    Kind::{self, Same, Sizes, Tokens},
    Walk,
};
use onnxq_ir::{
    NoMatch, NodeId, ValueId, no_match,
    tensor::{Dim, Shape, position},
};

/// The axis that attribute `axis` means for input `index`.
pub(super) fn axis_of(
    w: &Walk,
    node: NodeId,
    index: usize,
    default: i64,
) -> Result<usize, NoMatch> {
    let axis = w.m.int_attr(node, "axis", default);
    normal(axis, w.rank(w.m.operand(node, index)?)?)
}

fn normal(axis: i64, rank: usize) -> Result<usize, NoMatch> {
    position(axis, rank).ok_or_else(|| no_match!("no axis {axis}"))
}

/// Tokens meet the same tokens, or what is the same for all.
pub(super) fn broadcast(w: &Walk, inputs: &[(ValueId, Kind)]) -> Result<Kind, NoMatch> {
    let (mut from_end, mut rank) = (None, 0);
    for &(value, kind) in inputs {
        let own = w.rank(value)?;
        rank = rank.max(own);
        match kind {
            Same => {}
            Sizes => return Err(no_match!("it computes with the number of tokens")),
            Tokens(axis) if *from_end.get_or_insert(own - axis) == own - axis => {}
            Tokens(_) => return Err(no_match!("it combines each token with others")),
        }
    }
    let Some(from_end) = from_end else { return Ok(Same) };
    for &(value, kind) in inputs {
        single(w, value, kind, from_end)?;
    }
    Ok(Tokens(rank - from_end))
}

/// A value that is the same for all tokens must not have an axis where they lie.
fn single(w: &Walk, value: ValueId, kind: Kind, from_end: usize) -> Result<(), NoMatch> {
    let shape = w.m.shape(value)?;
    let at = shape.len().checked_sub(from_end).map(|it| &shape[it]);
    match (kind, at.map(Dim::fixed)) {
        (Tokens(_), _) | (_, None | Some(Some(1))) => Ok(()),
        _ => Err(no_match!("`{}` is as long as the tokens", w.m.value(value).name)),
    }
}

pub(super) fn matmul(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let ((a, of_a), (b, of_b)) = (w.operand(node, 0)?, w.operand(node, 1)?);
    let (rank_a, rank_b) = (w.rank(a)?, w.rank(b)?);
    if rank_a < 2 || rank_b < 2 {
        return Err(no_match!("the product is of vectors"));
    }
    let rank = rank_a.max(rank_b);
    let (value, from_end, other) = match (of_a, of_b) {
        (Tokens(axis), Same) => (b, rank_a - axis, 1),
        (Same, Tokens(axis)) => (a, rank_b - axis, 2),
        _ => return Err(no_match!("the product is of tokens with each other")),
    };
    // The contracted axis is the last of the first, and the one before the last of the second.
    if from_end == other {
        return Err(no_match!("the product sums over the tokens"));
    }
    if from_end > 2 {
        single(w, value, Same, from_end)?;
    }
    Ok(Tokens(rank - from_end))
}

pub(super) fn gather(w: &Walk, node: NodeId, attr: &str) -> Result<Kind, NoMatch> {
    let ((data, of_data), (at, of_at)) = (w.operand(node, 0)?, w.operand(node, 1)?);
    w.constants(node, 2)?;
    let axis = normal(w.m.int_attr(node, attr, 0), w.rank(data)?)?;
    match (of_data, of_at) {
        (Same, Tokens(it)) => Ok(Tokens(axis + it)),
        (Tokens(it), Same) if it < axis => Ok(Tokens(it)),
        (Tokens(it), Same) if it > axis => Ok(Tokens(it + w.rank(at)? - 1)),
        _ => Err(no_match!("it picks some of the tokens")),
    }
}

pub(super) fn concat(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let kind = w.other_axis(node, &[axis_of(w, node, 0, 0)?])?;
    for index in 1..w.m.node(node).inputs.len() {
        if w.operand(node, index)?.1 != kind {
            return Err(no_match!("not all parts have an axis of tokens"));
        }
    }
    Ok(kind)
}

/// `Transpose`, `Squeeze`, `Unsqueeze`.
pub(super) fn moved(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let m = w.m;
    let (x, kind) = w.operand(node, 0)?;
    let Tokens(axis) = kind else { return Err(no_match!("it computes with sizes")) };
    let (op, rank) = (&m.node(node).op, w.rank(x)?);
    if op.is("Transpose") {
        let at = match m.ints_attr(node, "perm") {
            None => Some(rank - 1 - axis),
            Some(perm) => perm.iter().position(|it| *it == axis as i64),
        };
        return at.map(Tokens).ok_or_else(|| no_match!("the permutation lacks an axis"));
    }
    let axes = axes(w, node)?;
    if op.is("Squeeze") {
        let axes = all_normal(&axes, rank)?;
        return match axes.contains(&axis) {
            true => Err(no_match!("it drops the axis of tokens")),
            false => lower(axis, axes.iter().filter(|it| **it < axis).count()),
        };
    }
    let axes = all_normal(&axes, rank + axes.len())?;
    let mut old = (0..rank + axes.len()).filter(|it| !axes.contains(it));
    old.nth(axis).map(Tokens).ok_or_else(|| no_match!("axes are named twice"))
}

fn axes(w: &Walk, node: NodeId) -> Result<Vec<i64>, NoMatch> {
    match w.m.ints_attr(node, "axes") {
        Some(it) => Ok(it.to_vec()),
        None => w.m.small_i64(w.m.operand(node, 1)?),
    }
}

fn all_normal(axes: &[i64], rank: usize) -> Result<Vec<usize>, NoMatch> {
    axes.iter().map(|it| normal(*it, rank)).collect()
}

pub(super) fn reduce(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let (x, _) = w.operand(node, 0)?;
    let axes = all_normal(&axes(w, node)?, w.rank(x)?)?;
    let Tokens(axis) = w.other_axis(node, &axes)? else { return Ok(Same) };
    let gone = match w.m.int_attr(node, "keepdims", 1) {
        0 => axes.iter().filter(|it| **it < axis).count(),
        1 => 0,
        it => return Err(no_match!("its `keepdims` is {it}")),
    };
    lower(axis, gone)
}

fn lower(axis: usize, by: usize) -> Result<Kind, NoMatch> {
    axis.checked_sub(by).map(Tokens).ok_or_else(|| no_match!("axes are named twice"))
}

/// The axis stays one if as many elements lie before it.
pub(super) fn reshape(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let (x, kind) = w.operand(node, 0)?;
    if matches!(w.operand(node, 1)?.1, Tokens(_)) {
        return Err(no_match!("the shape depends on tokens"));
    }
    let Tokens(axis) = kind else { return Ok(Same) };
    let (before, after) = (w.m.shape(x)?, w.m.shape(w.m.node(node).output())?);
    let is_same = |at: &usize| {
        after[*at].surely_equals(w.length)
            && product(&before[..axis]).is_some_and(|it| Some(it) == product(&after[..*at]))
    };
    let at = (0..after.len()).find(is_same);
    at.map(Tokens).ok_or_else(|| no_match!("batch and length do not stay apart"))
}

/// Numbers multiplied, and names in order.
fn product(dims: &[Dim]) -> Option<(usize, Vec<&str>)> {
    let (mut number, mut names) = (1usize, Vec::new());
    for it in dims {
        match it {
            Dim::Fixed(it) => number = number.checked_mul(*it)?,
            Dim::Symbol(it) => names.push(&**it),
            Dim::Unknown => return None,
        }
    }
    names.sort_unstable();
    Some((number, names))
}

/// `Expand` and `ConstantOfShape`: one value for all tokens may get an axis of them.
pub(super) fn spread(w: &Walk, node: NodeId) -> Result<Kind, NoMatch> {
    let m = w.m;
    let (x, kind) = w.operand(node, 0)?;
    let is_expand = m.node(node).op.is("Expand");
    if is_expand && matches!(w.operand(node, 1)?.1, Tokens(_)) || !is_expand && kind == Same {
        let reason = || no_match!("the shape depends on tokens");
        return if is_expand { Err(reason()) } else { Ok(Same) };
    }
    let shape: &Shape = m.shape(m.node(node).output())?;
    let places: Vec<usize> =
        (0..shape.len()).filter(|it| shape[*it].surely_equals(w.length)).collect();
    match (kind, &places[..]) {
        (Tokens(axis), _) if is_expand => lower(shape.len() + axis, w.rank(x)?),
        (Sizes, _) if is_expand => Ok(Sizes),
        (_, []) => Ok(Same),
        (_, [axis]) => {
            if is_expand {
                single(w, x, Same, shape.len() - axis)?;
            }
            Ok(Tokens(*axis))
        }
        _ => Err(no_match!("it has several axes of tokens")),
    }
}
