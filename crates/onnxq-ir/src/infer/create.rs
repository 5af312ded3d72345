//! Operators that make tensors from nothing or from sizes.

use super::{
    call::{Call, tensor},
    data::Data,
    dims,
    expr::Expr,
};
use crate::{
    ir::Attr,
    tensor::{DType, Dim, Shape, TensorType},
};

pub(super) fn constant(c: &Call) -> Option<TensorType> {
    // A Constant has one attribute; which, tells its type.
    let (name, _) = c.node.attrs.iter().next()?;
    constant_of(c.attr(name)?)
}

fn constant_of(attr: &Attr) -> Option<TensorType> {
    let list = |dtype, len: usize| TensorType::new(dtype, [len]);
    Some(match attr {
        Attr::Tensor(it) => TensorType::new(it.dtype, it.shape.iter().copied()),
        Attr::Sparse(it) => TensorType::new(it.values.dtype, it.shape.iter().copied()),
        Attr::Float(_) => tensor(DType::F32, Some(Shape::new())),
        Attr::Int(_) => tensor(DType::I64, Some(Shape::new())),
        Attr::String(_) => tensor(DType::String, Some(Shape::new())),
        Attr::Floats(it) => list(DType::F32, it.len()),
        Attr::Ints(it) => list(DType::I64, it.len()),
        Attr::Strings(it) => list(DType::String, it.len()),
        _ => return None,
    })
}

pub(super) fn constant_of_shape(c: &Call) -> Option<TensorType> {
    let dtype = match c.attr("value") {
        Some(Attr::Tensor(it)) => it.dtype,
        _ => DType::F32,
    };
    Some(tensor(dtype, shape_from(c, 0)))
}

/// The shape that an input holds; only its rank, if the elements are not known.
pub(super) fn shape_from(c: &Call, index: usize) -> Option<Shape> {
    if let Some(data) = c.data(index) {
        dims::of_rank(data.items.len())?;
        return Some(data.items.into_iter().map(dims::to_dim).collect());
    }
    dims::of_rank(c.dim(index, 0).fixed().filter(|_| c.rank(index) == Some(1))?)
}

pub(super) fn range(c: &Call) -> Option<TensorType> {
    let dtype = (0..3).find_map(|it| c.dtype(it))?;
    Some(tensor(dtype, Some(vec![dims::to_dim(range_len(c))])))
}

fn range_len(c: &Call) -> Option<Expr> {
    let (start, limit, step) = (c.scalar(0)?, c.scalar(1)?, c.scalar(2)?.constant()?);
    let way = if step < 0 { start.sub(&limit)? } else { limit.sub(&start)? };
    match way.constant() {
        Some(it) if it <= 0 => Some(Expr::from(0)),
        _ if way.at_least(0) => way.div_ceil(step.checked_abs()?),
        _ => None,
    }
}

/// The elements of a short range of numbers.
pub(super) fn range_data(c: &Call) -> Option<Data> {
    let len = usize::try_from(range_len(c)?.constant()?).ok()?;
    let (start, step) = (c.scalar(0)?, c.scalar(2)?);
    if len > super::data::MAX_COMPUTED {
        return None;
    }
    let item = |it: usize| start.add(&step.scale(it as i64)?);
    Some(Data { shape: vec![len], items: (0..len).map(item).collect() })
}

/// A shape from an attribute, as `RandomNormal` has it.
pub(super) fn random(c: &Call) -> Option<TensorType> {
    let shape = c.ints_attr("shape")?.iter().map(|it| dims::from_int(*it));
    Some(tensor(c.dtype_attr("dtype").unwrap_or(DType::F32), Some(shape.collect())))
}

/// The shape of the input, with an element type of its own if the node states one.
pub(super) fn like(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype_attr("dtype").or_else(|| c.dtype(0))?, c.shape(0)))
}

pub(super) fn multinomial(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype_attr("dtype").unwrap_or(DType::I32);
    let samples = dims::from_int(c.int_or("sample_size", 1));
    Some(TensorType::new(dtype, [c.dim(0, 0), samples]))
}

/// A window of as many elements as the input says.
pub(super) fn window(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype_attr("output_datatype").unwrap_or(DType::F32);
    let len: Dim = dims::to_dim(c.scalar(0));
    Some(TensorType::new(dtype, [len]))
}
