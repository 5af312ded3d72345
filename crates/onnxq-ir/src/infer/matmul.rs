//! Matrix products.

use super::{
    call::{Call, tensor},
    dims,
};
use crate::tensor::{DType, Dim, Shape, TensorType};

pub(super) fn matmul(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0).or_else(|| c.dtype(1))?, product(c.shape(0), c.shape(1))))
}

/// The shape of a product of matrices, stacks of them, or vectors, as numpy has it.
pub(super) fn product(a: Option<Shape>, b: Option<Shape>) -> Option<Shape> {
    let (a, b) = (a?, b?);
    let (_, a_outer) = a.split_last()?;
    let (row, a_batch) = match a_outer.split_last() {
        Some((row, batch)) => (Some(row), batch),
        None => (None, a_outer),
    };
    let (b_batch, column) = match &b[..] {
        [] => return None,
        [_] => (&b[..0], None),
        [batch @ .., _, column] => (batch, Some(column)),
    };
    let mut shape = dims::broadcast(&[Some(a_batch.to_vec()), Some(b_batch.to_vec())])?;
    shape.extend(row.into_iter().chain(column).cloned());
    Some(shape)
}

/// `com.microsoft.FusedMatMul`: either side may come transposed.
pub(super) fn fused_matmul(c: &Call) -> Option<TensorType> {
    let side = |index, name: &str| {
        let mut shape = c.shape(index)?;
        let rank = shape.len();
        if c.flag(name) && rank >= 2 {
            shape.swap(rank - 1, rank - 2);
        }
        Some(shape)
    };
    let batches = ["transBatchA", "transBatchB"].iter().any(|it| c.flag(it));
    let shape = if batches { None } else { product(side(0, "transA"), side(1, "transB")) };
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn gemm(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(0).or_else(|| c.dtype(1))?;
    Some(TensorType::new(dtype, gemm_dims(c, 0, 1)))
}

pub(super) fn gemm_dims(c: &Call, a: usize, b: usize) -> [Dim; 2] {
    let side = |index, flag: &str, axis: usize| c.dim(index, axis ^ usize::from(c.flag(flag)));
    [side(a, "transA", 0), side(b, "transB", 1)]
}

/// The weight is packed; the attribute `N` tells its columns.
pub(super) fn matmul_nbits(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|mut shape| {
        *shape.last_mut()? = dims::from_int(c.int_attr("N")?);
        Some(shape)
    });
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn matmul_integer(c: &Call) -> Option<TensorType> {
    Some(tensor(DType::I32, product(c.shape(0), c.shape(1))))
}

/// Integer product, scaled back to float: inputs `a`, `b` and their scales.
pub(super) fn matmul_integer_to_float(c: &Call) -> Option<TensorType> {
    let dtype = c.dtype(2).or_else(|| c.dtype(3)).unwrap_or(DType::F32);
    Some(tensor(dtype, product(c.shape(0), c.shape(1))))
}

pub(super) fn dynamic_quantize_matmul(c: &Call) -> Option<TensorType> {
    Some(tensor(c.dtype(0)?, product(c.shape(0), c.shape(1))))
}

pub(super) fn det(c: &Call) -> Option<TensorType> {
    let shape = c.shape(0).and_then(|it| it.len().checked_sub(2).map(|rank| it[..rank].to_vec()));
    Some(tensor(c.dtype(0)?, shape))
}

pub(super) fn einsum(c: &Call) -> Option<TensorType> {
    let dtype = (0..c.inputs()).find_map(|it| c.dtype(it))?;
    Some(tensor(dtype, einsum_shape(c)))
}

/// Letters only: an ellipsis is not followed.
fn einsum_shape(c: &Call) -> Option<Shape> {
    let text: String = std::str::from_utf8(c.str_attr("equation")).ok()?.replace(' ', "");
    let (inputs, output) = match text.split_once("->") {
        Some((inputs, output)) => (inputs, output.to_owned()),
        None => (&*text, once_letters(&text)),
    };
    if !text.is_ascii() || text.contains('.') {
        return None;
    }
    let mut sizes: [Dim; 128] = std::array::from_fn(|_| Dim::Unknown);
    for (index, term) in inputs.split(',').enumerate() {
        let shape = c.shape(index).filter(|it| it.len() == term.len())?;
        for (letter, dim) in term.bytes().zip(shape) {
            let size = sizes.get_mut(usize::from(letter))?;
            if *size == Dim::Unknown
                || *size == Dim::Fixed(1)
                || dim.fixed().is_some_and(|it| it > 1)
            {
                *size = dim;
            }
        }
    }
    dims::of_rank(output.len())?;
    output.bytes().map(|it| sizes.get(usize::from(it)).cloned()).collect()
}

/// Without an arrow the letters that occur once are the result, in order.
fn once_letters(text: &str) -> String {
    let letter = |it: &char| it.is_ascii_alphabetic() && text.matches(*it).count() == 1;
    ('A'..='z').filter(letter).collect()
}
