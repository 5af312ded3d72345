//! Shapes, axes and broadcasting; tensors put together from elements of others.

use bytes::Bytes;

use super::{EvalError, LIMIT, values};
use crate::tensor::{self, DType, Tensor, pack_bits};

/// The number of elements, if it is sane.
///
/// Empty dimensions count as one for the limit, so loops over the other dimensions end, too.
pub(super) fn elements(shape: &[usize]) -> Result<usize, EvalError> {
    let size = shape.iter().try_fold(1usize, |size, it| size.checked_mul((*it).max(1)));
    match size {
        Some(size) if size <= LIMIT => Ok(if shape.contains(&0) { 0 } else { size }),
        _ => Err(EvalError::TooLarge { shape: shape.to_vec() }),
    }
}

/// A shape from untrusted numbers.
pub(super) fn shape(dims: &[i64]) -> Result<Vec<usize>, EvalError> {
    let negative = || EvalError::Shape { what: format!("{dims:?} is not a shape") };
    let dims: Option<Vec<usize>> = dims.iter().map(|it| usize::try_from(*it).ok()).collect();
    let dims = dims.ok_or_else(negative)?;
    elements(&dims)?;
    Ok(dims)
}

/// An axis, counted from the end if negative.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, EvalError> {
    position(axis, rank)
}

/// Distinct axes, in the given order.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, EvalError> {
    let axes = list.iter().map(|it| axis(*it, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|it| it[0] == it[1]) {
        return Err(EvalError::Shape { what: format!("axes {list:?} repeat") });
    }
    Ok(axes)
}

/// An index, counted from the end if negative.
pub(super) fn position(index: i64, size: usize) -> Result<usize, EvalError> {
    tensor::position(index, size).ok_or(EvalError::Index { index, size })
}

/// `(elements before, size, elements after)` of an axis.
pub(super) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Row-major distances between neighbours along each axis.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] as isize;
    }
    strides
}

/// The shape that both shapes broadcast to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, EvalError> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], axis: usize| match (axis + shape.len()).checked_sub(rank) {
        Some(it) => shape[it],
        None => 1,
    };
    let merge = |axis| match (dim(a, axis), dim(b, axis)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(EvalError::Shape { what: format!("shapes {a:?} and {b:?} do not broadcast") }),
    };
    let shape = (0..rank).map(merge).collect::<Result<Vec<_>, _>>()?;
    elements(&shape)?;
    Ok(shape)
}

/// For each element of `to`, in order, where it comes from in a tensor of shape `from`.
pub(super) fn broadcast_to(from: &[usize], to: &[usize]) -> Result<Walk, EvalError> {
    if broadcast(from, to)? != to {
        let what = format!("shape {from:?} does not broadcast to {to:?}");
        return Err(EvalError::Shape { what });
    }
    let mut steps = vec![0; to.len() - from.len()];
    let own = strides(from).into_iter().zip(from);
    steps.extend(own.map(|(stride, dim)| if *dim == 1 { 0 } else { stride }));
    Ok(Walk::new(to, steps, 0))
}

/// The offsets of a strided view, in row-major order.
pub(super) struct Walk {
    shape: Vec<usize>,
    strides: Vec<isize>,
    index: Vec<usize>,
    at: isize,
    left: usize,
}

impl Walk {
    pub(super) fn new(shape: &[usize], strides: Vec<isize>, start: isize) -> Walk {
        let left = shape.iter().product();
        Walk { shape: shape.to_vec(), strides, index: vec![0; shape.len()], at: start, left }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        for axis in (0..self.shape.len()).rev() {
            self.at += self.strides[axis];
            self.index[axis] += 1;
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.at -= self.strides[axis] * self.shape[axis] as isize;
            self.index[axis] = 0;
        }
        Some(at as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The tensor of the elements of `source` at the given offsets, of any element type.
pub(super) fn pick(
    source: &Tensor,
    shape: &[usize],
    at: impl Iterator<Item = usize>,
) -> Result<Tensor, EvalError> {
    pick_from(&[source], shape, at.map(|it| (0, it)))
}

/// The tensor of elements of several sources, each given as `(source, offset)`.
pub(super) fn pick_from(
    sources: &[&Tensor],
    shape: &[usize],
    at: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor, EvalError> {
    elements(shape)?;
    let dtype = same_dtype(sources)?;
    if dtype == DType::String {
        let lists = sources.iter().map(|it| values::texts(it)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Tensor::strings(shape.to_vec(), cells(&lists, at)?));
    }
    let bits = dtype.bits();
    let read = |it: &&Tensor| match bits {
        2 | 4 => Ok(Bytes::from(values::quantized(it, bits as u32)?)),
        _ => Ok(it.bytes()?),
    };
    let data = sources.iter().map(read).collect::<Result<Vec<_>, EvalError>>()?;
    let bytes = match bits {
        2 | 4 => pack_bits(copy::<1>(&data, at)?.into_iter(), bits as u32),
        8 => copy::<1>(&data, at)?.into(),
        16 => copy::<2>(&data, at)?.into(),
        32 => copy::<4>(&data, at)?.into(),
        64 => copy::<8>(&data, at)?.into(),
        128 => copy::<16>(&data, at)?.into(),
        _ => return Err(EvalError::Type { expected: "whole or half bytes", got: dtype }),
    };
    Ok(Tensor::new(dtype, shape.to_vec(), bytes))
}

/// The element type that all tensors share.
pub(super) fn same_dtype(tensors: &[&Tensor]) -> Result<DType, EvalError> {
    let Some(first) = tensors.first() else {
        return Err(EvalError::MissingInput { name: "every input".into() });
    };
    match tensors.iter().find(|it| it.dtype != first.dtype) {
        None => Ok(first.dtype),
        Some(it) => Err(EvalError::Type { expected: "one element type", got: it.dtype }),
    }
}

/// One element of zero bits.
pub(super) fn zero(dtype: DType) -> Tensor {
    match dtype {
        DType::String => Tensor::strings(vec![], vec![Bytes::new()]),
        _ => Tensor::new(dtype, vec![], vec![0; dtype.bits().div_ceil(8)]),
    }
}

fn copy<const N: usize>(
    sources: &[Bytes],
    at: impl Iterator<Item = (usize, usize)>,
) -> Result<Vec<u8>, EvalError> {
    let lists: Vec<&[[u8; N]]> = sources.iter().map(|it| it.as_chunks().0).collect();
    Ok(cells(&lists, at)?.into_flattened())
}

fn cells<T: Clone>(
    lists: &[&[T]],
    at: impl Iterator<Item = (usize, usize)>,
) -> Result<Vec<T>, EvalError> {
    let mut out = Vec::with_capacity(at.size_hint().0.min(LIMIT));
    for (source, offset) in at {
        let list = lists[source];
        let outside = || EvalError::Index { index: offset as i64, size: list.len() };
        out.push(list.get(offset).ok_or_else(outside)?.clone());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_numpy() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]).unwrap(), [2, 4, 3]);
        assert_eq!(broadcast(&[1], &[0]).unwrap(), [0]);
        assert!(broadcast(&[2], &[3]).is_err());
        assert!(broadcast_to(&[2], &[1]).is_err());
        let walk: Vec<usize> = broadcast_to(&[2, 1], &[2, 2, 2]).unwrap().collect();
        assert_eq!(walk, [0, 0, 1, 1, 0, 0, 1, 1]);
    }

    #[test]
    fn sizes_are_checked_without_overflow_even_beside_a_zero() {
        assert_eq!(elements(&[1, 0, 64]).unwrap(), 0);
        assert!(elements(&[0, usize::MAX, usize::MAX]).is_err());
        assert!(elements(&[LIMIT, 2]).is_err());
    }

    #[test]
    fn narrow_elements_are_picked_one_by_one() {
        let source = Tensor::new(DType::I4, vec![3], vec![0x21, 0x0f]);
        let picked = pick(&source, &[3], [2, 1, 0].into_iter()).unwrap();
        assert_eq!(values::ints(&picked).unwrap(), [-1, 2, 1]);
        assert!(pick(&source, &[1], [3].into_iter()).is_err());
    }
}
