//! Matrix products: `MatMul`, `Gemm`, `FusedMatMul` and the product that the quantized ones share.

use rayon::prelude::*;

use super::{
    EvalError,
    binary::combine,
    call::Call,
    index::{broadcast, broadcast_to, elements, same_dtype},
    shape::permute,
    table::Outputs,
    values::{int_tensor, ints, real_tensor, reals},
};
use crate::tensor::Tensor;

/// A number that products are made of; integers wrap.
pub(super) trait Number: Copy + Default + Send + Sync {
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Number for f64 {
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Number for i64 {
    fn add_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Elements with their shape.
pub(super) struct Matrix<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

pub(super) fn mat_mul(call: &Call) -> Outputs {
    Ok(vec![multiply(call.input(0)?, call.input(1)?)?])
}

/// `com.microsoft.FusedMatMul`: transposed and scaled.
pub(super) fn fused_mat_mul(call: &Call) -> Outputs {
    if call.flag("transBatchA", false)? || call.flag("transBatchB", false)? {
        return Err(call.unsupported("with transposed batches"));
    }
    let a = turned(call.input(0)?, call.flag("transA", false)?)?;
    let b = turned(call.input(1)?, call.flag("transB", false)?)?;
    let alpha = call.float("alpha", 1.0)?;
    let product = multiply(&a, &b)?;
    let values = reals(&product)?.into_iter().map(|it| it * alpha);
    Ok(vec![real_tensor(product.dtype, &product.shape, values)?])
}

/// `alpha * a * b + beta * c`.
pub(super) fn gemm(call: &Call) -> Outputs {
    let a = turned(call.input(0)?, call.flag("transA", false)?)?;
    let b = turned(call.input(1)?, call.flag("transB", false)?)?;
    if a.shape.len() != 2 || b.shape.len() != 2 {
        return Err(call.shape_error("not matrices"));
    }
    let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
    let product = multiply(&a, &b)?;
    if !a.dtype.is_float() {
        let plain = alpha == 1.0 && beta == 1.0;
        return match call.optional(2) {
            Some(c) if plain => Ok(vec![combine(&product, c, |a, _| a, |a, b| Some(a + b))?]),
            None if plain => Ok(vec![product]),
            _ => Err(call.unsupported("of scaled integers")),
        };
    }
    let mut values = reals(&product)?;
    values.iter_mut().for_each(|it| *it *= alpha);
    if let Some(c) = call.optional(2) {
        let addend = reals(c)?;
        let at = broadcast_to(&c.shape, &product.shape)?;
        values.iter_mut().zip(at).for_each(|(it, at)| *it += beta * addend[at]);
    }
    Ok(vec![real_tensor(product.dtype, &product.shape, values)?])
}

/// The product as `MatMul` defines it, for floats or integers.
pub(super) fn multiply(a: &Tensor, b: &Tensor) -> Result<Tensor, EvalError> {
    let dtype = same_dtype(&[a, b])?;
    if dtype.is_float() {
        let a = Matrix { shape: a.shape.clone(), values: reals(a)? };
        let b = Matrix { shape: b.shape.clone(), values: reals(b)? };
        let product = product(a, b)?;
        return real_tensor(dtype, &product.shape, product.values);
    }
    let a = Matrix { shape: a.shape.clone(), values: ints(a)? };
    let b = Matrix { shape: b.shape.clone(), values: ints(b)? };
    let product = product(a, b)?;
    int_tensor(dtype, &product.shape, product.values.into_iter().map(i128::from))
}

/// Products of stacks of matrices, whose leading axes broadcast; a vector is a row or a column.
pub(super) fn product<T: Number>(
    mut a: Matrix<T>,
    mut b: Matrix<T>,
) -> Result<Matrix<T>, EvalError> {
    let mismatch = format!("no product of shapes {:?} and {:?}", a.shape, b.shape);
    let (row, column) = (a.shape.len() == 1, b.shape.len() == 1);
    if row {
        a.shape.insert(0, 1);
    }
    if column {
        b.shape.push(1);
    }
    let ([stack_a @ .., m, k], [stack_b @ .., depth, n]) = (&a.shape[..], &b.shape[..]) else {
        return Err(EvalError::Shape { what: mismatch });
    };
    if k != depth {
        return Err(EvalError::Shape { what: mismatch });
    }
    let (m, k, n) = (*m, *k, *n);
    let stack = broadcast(stack_a, stack_b)?;
    let mut shape = [&stack[..], &[m, n]].concat();
    let mut values = vec![T::default(); elements(&shape)?];
    let at_a: Vec<usize> = broadcast_to(stack_a, &stack)?.collect();
    let at_b: Vec<usize> = broadcast_to(stack_b, &stack)?.collect();
    // Row by row, so the order of additions does not depend on the number of threads.
    values.par_chunks_mut(n.max(1)).enumerate().for_each(|(index, out)| {
        let (matrix, row) = (index / m, index % m);
        let a = &a.values[(at_a[matrix] * m + row) * k..][..k];
        let b = &b.values[at_b[matrix] * k * n..][..k * n];
        for (a, b) in a.iter().zip(b.chunks_exact(n)) {
            out.iter_mut().zip(b).for_each(|(sum, b)| *sum = sum.add_product(*a, *b));
        }
    });
    if column {
        shape.pop();
    }
    if row {
        shape.remove(stack.len());
    }
    Ok(Matrix { shape, values })
}

/// With the last two axes swapped, if so asked.
fn turned(tensor: &Tensor, transposed: bool) -> Result<Tensor, EvalError> {
    let rank = tensor.shape.len();
    if !transposed || rank < 2 {
        return Ok(tensor.clone());
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    permute(tensor, &order)
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn stacks_broadcast_and_vectors_lose_their_axis() {
        let a = f32s(&[2, 1, 2], &[1., 2., 3., 4.]);
        let b = f32s(&[2, 2], &[1., 10., 100., 1000.]);
        let product = eval("MatMul", &[&a, &b], Attrs::default()).unwrap();
        assert_eq!(product.shape, [2, 1, 2]);
        close(&product, &[201., 2010., 403., 4030.]);
        let v = f32s(&[2], &[1., 1.]);
        let left = eval("MatMul", &[&v, &b], Attrs::default()).unwrap();
        assert_eq!(left.shape, [2]);
        close(&left, &[101., 1010.]);
        let dot = eval("MatMul", &[&v, &v], Attrs::default()).unwrap();
        assert!(dot.shape.is_empty());
        assert!(eval("MatMul", &[&v, &f32s(&[3], &[0.; 3])], Attrs::default()).is_err());
    }

    #[test]
    fn gemm_scales_and_transposes() {
        let a = f32s(&[2, 1], &[1., 2.]);
        let b = f32s(&[2, 2], &[1., 2., 3., 4.]);
        let c = f32s(&[2], &[1., 1.]);
        let attrs = Attrs::default().with("transA", 1i64).with("transB", 1i64);
        let result = eval("Gemm", &[&a, &b, &c], attrs.with("beta", 0.5f32)).unwrap();
        close(&result, &[5.5, 11.5]);
    }

    #[test]
    fn nothing_summed_is_zero() {
        let (a, b) = (f32s(&[2, 0], &[]), f32s(&[0, 1], &[]));
        close(&eval("MatMul", &[&a, &b], Attrs::default()).unwrap(), &[0., 0.]);
        let empty = eval("MatMul", &[&b, &a], Attrs::default());
        assert!(empty.is_err());
        let c = f32s(&[1, 0], &[]);
        assert_eq!(
            eval("MatMul", &[&f32s(&[3, 1], &[1.; 3]), &c], Attrs::default()).unwrap().shape,
            [3, 0]
        );
    }
}
