//! Small values that are sizes: what `Shape` says, followed through the nodes that compute with it.

use super::{
    call::{Call, position},
    create, dims,
    expr::Expr,
};
use crate::{
    ir::{Attr, normal_domain},
    tensor::{DType, Tensor},
};

/// Elements of a tensor, row-major, as far as they are known whole numbers or sizes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    pub shape: Vec<usize>,
    pub items: Vec<Option<Expr>>,
}

/// Elements of a constant that is read.
pub(super) const MAX_CONSTANT: usize = 1024;
/// Elements of a computed value that is kept.
pub(super) const MAX_COMPUTED: usize = 32;

type Row = fn(&Call) -> Option<Data>;

/// The first output of an operator, from the elements of its inputs.
const DATA: &[(&str, Row)] = &[
    ("Abs", |c| {
        map(c, |it| if it.at_least(0) { Some(it.clone()) } else { whole(it, i64::checked_abs) })
    }),
    ("Add", |c| zip(c, Expr::add)),
    ("And", |c| zip(c, |a, b| truth(known_truth(a)? && known_truth(b)?))),
    ("Cast", cast),
    ("Ceil", same),
    ("Concat", concat),
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("Div", |c| if c.dtype(0)?.is_float() { zip(c, Expr::div_exact) } else { zip(c, divide) }),
    ("Equal", |c| zip(c, |a, b| truth(equal(a, b)?))),
    ("Expand", expand),
    ("Flatten", reshape_like),
    ("Floor", same),
    ("Gather", gather),
    ("Greater", |c| zip(c, |a, b| truth(less(b, a)?))),
    ("GreaterOrEqual", |c| zip(c, |a, b| truth(!less(a, b)?))),
    ("Identity", same),
    ("Less", |c| zip(c, |a, b| truth(less(a, b)?))),
    ("LessOrEqual", |c| zip(c, |a, b| truth(!less(b, a)?))),
    ("Max", |c| zip(c, |a, b| a.add(b)?.sub(&a.smaller(b)?))),
    ("Min", |c| zip(c, Expr::smaller)),
    ("Mod", |c| zip(c, modulo)),
    ("Mul", |c| zip(c, Expr::mul)),
    ("Neg", |c| map(c, |it| it.scale(-1))),
    ("Not", |c| map(c, |it| truth(!known_truth(it)?))),
    ("Or", |c| zip(c, |a, b| truth(known_truth(a)? || known_truth(b)?))),
    ("Range", create::range_data),
    ("ReduceProd", |c| reduce(c, Expr::mul, 1)),
    ("ReduceSum", |c| reduce(c, Expr::add, 0)),
    ("Reshape", reshape_like),
    ("Shape", shape),
    ("Size", |c| scalar(dims::product(&c.shape(0)?))),
    ("Slice", slice),
    ("Squeeze", reshape_like),
    ("Sub", |c| zip(c, Expr::sub)),
    ("Transpose", transpose),
    ("Unsqueeze", reshape_like),
    ("Where", where_),
];

pub(super) fn propagate(c: &Call) -> Option<Data> {
    if !normal_domain(&c.node.op.domain).is_empty() {
        return None;
    }
    let at = DATA.binary_search_by(|row| row.0.cmp(&c.node.op.name)).ok()?;
    DATA[at].1(c)
}

impl Data {
    /// The elements of a constant; those that are not whole numbers are unknown.
    pub fn of_tensor(it: &Tensor) -> Option<Data> {
        let items = if it.dtype.is_float() {
            it.to_f32().ok()?.into_iter().map(whole_float).collect()
        } else {
            it.to_i64().ok()?.into_iter().map(|it| Some(Expr::from(it))).collect()
        };
        Some(Data { shape: it.shape.clone(), items })
    }

    pub fn constants(&self) -> Option<Vec<i64>> {
        self.items.iter().map(|it| it.as_ref()?.constant()).collect()
    }

    fn list(items: Vec<Option<Expr>>) -> Data {
        Data { shape: vec![items.len()], items }
    }
}

fn whole_float(it: f32) -> Option<Expr> {
    // Above, floats are not exact, and nobody counts with them.
    const EXACT: f32 = (1 << 24) as f32;
    (it.fract() == 0.0 && it.abs() <= EXACT).then(|| Expr::from(it as i64))
}

fn scalar(dim: crate::tensor::Dim) -> Option<Data> {
    Some(Data { shape: Vec::new(), items: vec![Expr::of(&dim)] })
}

fn truth(value: bool) -> Option<Expr> {
    Some(Expr::from(i64::from(value)))
}

fn known_truth(it: &Expr) -> Option<bool> {
    match it.constant() {
        Some(it) => Some(it != 0),
        None => it.at_least(1).then_some(true),
    }
}

fn whole(it: &Expr, op: fn(i64) -> Option<i64>) -> Option<Expr> {
    op(it.constant()?).map(Expr::from)
}

/// Whether both are the same, if that does not depend on the names.
fn equal(a: &Expr, b: &Expr) -> Option<bool> {
    let apart = || a.sub(b).zip(b.sub(a)).is_some_and(|(x, y)| x.at_least(1) || y.at_least(1));
    if a == b { Some(true) } else { apart().then_some(false) }
}

fn less(a: &Expr, b: &Expr) -> Option<bool> {
    if b.sub(a)?.at_least(1) {
        return Some(true);
    }
    a.sub(b)?.at_least(0).then_some(false)
}

/// Integer division drops the fraction.
fn divide(a: &Expr, b: &Expr) -> Option<Expr> {
    if let Some(it) = a.div_exact(b) {
        return Some(it);
    }
    match (a.constant(), b.constant()?) {
        (Some(a), b) => a.checked_div(b).map(Expr::from),
        (None, b) if a.at_least(0) => a.div_floor(b),
        _ => None,
    }
}

fn modulo(a: &Expr, b: &Expr) -> Option<Expr> {
    let by = b.constant().filter(|_| a.at_least(0))?;
    a.sub(&a.div_floor(by)?.scale(by)?)
}

fn same(c: &Call) -> Option<Data> {
    c.data(0)
}

fn map(c: &Call, op: impl Fn(&Expr) -> Option<Expr>) -> Option<Data> {
    let mut data = small(c, 0)?;
    data.items = data.items.iter().map(|it| op(it.as_ref()?)).collect();
    Some(data)
}

/// Both inputs element by element; one of them may be a single element.
fn zip(c: &Call, op: impl Fn(&Expr, &Expr) -> Option<Expr>) -> Option<Data> {
    if c.inputs() != 2 {
        return None;
    }
    let (a, b) = (small(c, 0)?, small(c, 1)?);
    let shape = common_shape(&[&a, &b])?;
    let pick = |it: &Data, at: usize| it.items[if it.items.len() == 1 { 0 } else { at }].clone();
    let item = |at| op(&pick(&a, at)?, &pick(&b, at)?);
    Some(Data { items: (0..count(&shape)?).map(item).collect(), shape })
}

fn where_(c: &Call) -> Option<Data> {
    let (test, a, b) = (small(c, 0)?, small(c, 1)?, small(c, 2)?);
    let shape = common_shape(&[&test, &a, &b])?;
    let pick = |it: &Data, at: usize| it.items[if it.items.len() == 1 { 0 } else { at }].clone();
    let item = |at| match pick(&test, at).as_ref().and_then(known_truth) {
        Some(true) => pick(&a, at),
        Some(false) => pick(&b, at),
        None => pick(&a, at).filter(|it| Some(it) == pick(&b, at).as_ref()),
    };
    Some(Data { items: (0..count(&shape)?).map(item).collect(), shape })
}

/// Elements that are worth computing with.
fn small(c: &Call, index: usize) -> Option<Data> {
    c.data(index).filter(|it| it.items.len() <= MAX_COMPUTED)
}

/// The one shape of all that are not single elements, of the highest rank.
fn common_shape(list: &[&Data]) -> Option<Vec<usize>> {
    let rank = list.iter().map(|it| it.shape.len()).max()?;
    let mut full = list.iter().filter(|it| it.items.len() != 1).map(|it| &it.shape);
    let Some(shape) = full.next() else { return Some(vec![1; rank]) };
    (shape.len() == rank && full.all(|it| it == shape)).then(|| shape.clone())
}

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, it| n.checked_mul(*it)).filter(|it| *it <= MAX_COMPUTED)
}

fn cast(c: &Call) -> Option<Data> {
    match c.dtype_attr("to")? {
        DType::I64 | DType::I32 | DType::F32 | DType::F64 => same(c),
        DType::Bool => map(c, |it| truth(known_truth(it)?)),
        _ => None,
    }
}

fn constant(c: &Call) -> Option<Data> {
    let (name, _) = c.node.attrs.iter().next()?;
    match c.attr(name)? {
        Attr::Int(it) => Some(Data { shape: Vec::new(), items: vec![Some(Expr::from(*it))] }),
        Attr::Ints(it) if it.len() <= MAX_CONSTANT => {
            Some(Data::list(it.iter().map(|it| Some(Expr::from(*it))).collect()))
        }
        Attr::Float(it) => Some(Data { shape: Vec::new(), items: vec![whole_float(*it)] }),
        Attr::Tensor(it) => count(&it.shape).and_then(|_| Data::of_tensor(it)),
        _ => None,
    }
}

fn constant_of_shape(c: &Call) -> Option<Data> {
    let fixed = |it: i64| usize::try_from(it).ok();
    let shape: Vec<usize> = c.ints(0)?.into_iter().map(fixed).collect::<Option<_>>()?;
    let item = match c.attr("value") {
        Some(Attr::Tensor(it)) => {
            count(&it.shape).and_then(|_| Data::of_tensor(it))?.items.into_iter().next()?
        }
        _ => Some(Expr::from(0)),
    };
    Some(Data { items: vec![item; count(&shape)?], shape })
}

fn shape(c: &Call) -> Option<Data> {
    let shape = c.shape(0)?;
    let range = shape_range(c, shape.len());
    Some(Data::list(shape[range].iter().map(Expr::of).collect()))
}

/// The axes that `Shape` returns.
pub(super) fn shape_range(c: &Call, rank: usize) -> std::ops::Range<usize> {
    let clamp = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank as i64) } else { at };
        at.clamp(0, rank as i64) as usize
    };
    let (start, end) = (clamp(c.int_or("start", 0)), clamp(c.int_or("end", i64::MAX)));
    start..end.max(start)
}

fn concat(c: &Call) -> Option<Data> {
    let parts: Vec<Data> = (0..c.inputs()).map(|it| list_or_blank(c, it)).collect::<Option<_>>()?;
    c.axis(0, 1)?;
    let total: usize = parts.iter().map(|it| it.items.len()).sum();
    (total <= MAX_COMPUTED).then(|| Data::list(parts.into_iter().flat_map(|it| it.items).collect()))
}

/// The elements of a list; if only its length is known, that many unknown ones.
fn list_or_blank(c: &Call, index: usize) -> Option<Data> {
    match small(c, index) {
        Some(it) => (it.shape.len() == 1).then_some(it),
        None if c.rank(index)? == 1 => {
            let len = c.dim(index, 0).fixed().filter(|it| *it <= MAX_COMPUTED)?;
            Some(Data::list(vec![None; len]))
        }
        None => None,
    }
}

fn gather(c: &Call) -> Option<Data> {
    let (data, at) = (c.data(0)?, small(c, 1)?);
    c.axis(0, data.shape.len())?;
    let [len] = data.shape[..] else { return None };
    let item = |at: i64| data.items[position(at, len)?].clone();
    let items = at.constants()?.into_iter().map(item).collect();
    Some(Data { shape: at.shape, items })
}

fn expand(c: &Call) -> Option<Data> {
    let (data, target) = (small(c, 0)?, super::shape::expand(c)?.fixed_shape()?);
    let [only] = &data.items[..] else { return (data.shape == target).then_some(data) };
    Some(Data { items: vec![only.clone(); count(&target)?], shape: target })
}

/// The same elements in the shape of the output.
fn reshape_like(c: &Call) -> Option<Data> {
    let data = small(c, 0)?;
    let ty = super::ops::row(&c.node.op)?(c).into_iter().next()??;
    let shape = ty.fixed_shape()?;
    (count(&shape)? == data.items.len()).then_some(Data { shape, items: data.items })
}

fn reduce(c: &Call, op: fn(&Expr, &Expr) -> Option<Expr>, start: i64) -> Option<Data> {
    let data = small(c, 0).filter(|it| it.shape.len() == 1)?;
    let shape = super::reduce::reduce(c)?.fixed_shape()?;
    if count(&shape)? != 1 || c.axes(1)?.is_some_and(|it| it.is_empty()) {
        return None;
    }
    let mut items = data.items.into_iter();
    let sum = items.try_fold(Expr::from(start), |sum, it| op(&sum, &it?));
    Some(Data { shape, items: vec![sum] })
}

/// Slices of lists, and of the rows of a matrix.
fn slice(c: &Call) -> Option<Data> {
    let data = small(c, 0)?;
    let (starts, ends) = super::shape::slice_bounds(c)?;
    let ([start], [end]) = (&starts.constants()?[..], &ends.constants()?[..]) else { return None };
    let axes = super::shape::slice_axes(c, 1)?;
    let step = super::shape::slice_steps(c, 1)?[0];
    let rows = *data.shape.get(position(axes[0], data.shape.len()).filter(|it| *it == 0)?)?;
    let picked = picked(rows, *start, *end, step)?;
    let width = data.items.len().checked_div(rows).unwrap_or(0);
    let items = picked.iter().flat_map(|row| data.items[row * width..][..width].iter().cloned());
    let mut shape = data.shape.clone();
    shape[0] = picked.len();
    Some(Data { items: items.collect(), shape })
}

/// The positions that a slice takes, as Python does it.
pub(super) fn picked(len: usize, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let (start, count) = slice_count(len, start, end, step)?;
    let at = |it: i64| usize::try_from(start + it * step).ok();
    if count > MAX_COMPUTED as i64 { None } else { (0..count).map(at).collect() }
}

/// The first position of a slice and how many it takes.
pub(super) fn slice_count(len: usize, start: i64, end: i64, step: i64) -> Option<(i64, i64)> {
    let len = i64::try_from(len).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(len) } else { at };
    let (start, end) = (from_end(start), from_end(end));
    if step > 0 {
        let (start, end) = (start.clamp(0, len), end.clamp(0, len));
        return Some((start, ceil_div((end - start).max(0), step)));
    }
    let (start, end) = (start.clamp(-1, len - 1), end.clamp(-1, len - 1));
    (step < 0).then(|| (start, ceil_div((start - end).max(0), step.saturating_neg())))
}

fn ceil_div(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b != 0)
}

fn transpose(c: &Call) -> Option<Data> {
    let data = small(c, 0)?;
    let [rows, columns] = data.shape[..] else { return None };
    if c.ints_attr("perm").is_some_and(|it| it != [1, 0]) {
        return None;
    }
    let at = |it: usize| data.items[it % rows * columns + it / rows].clone();
    Some(Data { shape: vec![columns, rows], items: (0..data.items.len()).map(at).collect() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_in_order() {
        assert!(DATA.is_sorted_by(|a, b| a.0 < b.0));
    }

    proptest! {
        #[test]
        fn slices_are_those_of_python(len in 0usize..6, start in -8i64..8, end in -8i64..8, step in -3i64..4) {
            prop_assume!(step != 0);
            // A walk from the first position, which a negative step may find past the end.
            let from_end = |it: i64| if it < 0 { it + len as i64 } else { it };
            let low = if step > 0 { 0 } else { -1 };
            let high = len as i64 + low;
            let (mut at, end_at) = (from_end(start).clamp(low, high), from_end(end).clamp(low, high));
            let mut want = Vec::new();
            while if step > 0 { at < end_at } else { at > end_at } {
                want.push(at as usize);
                at += step;
            }
            prop_assert_eq!(picked(len, start, end, step), Some(want));
        }
    }
}
