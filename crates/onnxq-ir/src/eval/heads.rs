//! Queries, keys and values split into heads.

use super::{
    EvalError,
    call::Call,
    values::{real_tensor, reals},
};
use crate::tensor::{DType, Tensor};

/// Values as `[batch, heads, length, size]`.
pub(super) struct Heads {
    pub dims: [usize; 4],
    pub values: Vec<f64>,
}

impl Heads {
    /// Of `[batch, heads, length, size]`, or of `[batch, length, heads · size]`.
    pub(super) fn of(call: &Call, index: usize, heads: usize) -> Result<Heads, EvalError> {
        let (input, values) = (call.input(index)?, call.reals(index)?);
        match input.shape[..] {
            [batch, heads, length, size] => {
                Ok(Heads { dims: [batch, heads, length, size], values })
            }
            [batch, length, hidden] if heads > 0 && hidden % heads == 0 => {
                let dims = [batch, heads, length, hidden / heads];
                Ok(Heads { dims, values: swap(&values, [batch, length, heads, hidden / heads]) })
            }
            _ => Err(call.shape_error("no heads")),
        }
    }

    pub(super) fn row(&self, batch: usize, head: usize, at: usize) -> &[f64] {
        let [_, heads, length, size] = self.dims;
        let start = ((batch * heads + head) * length + at) * size;
        &self.values[start..start + size]
    }

    /// `past` and then `self` along the length.
    pub(super) fn after(self, call: &Call, past: Option<&Tensor>) -> Result<Heads, EvalError> {
        let Some(past) = past else { return Ok(self) };
        let [batch, heads, length, size] = self.dims;
        let [b, h, before, s] = past.shape[..] else {
            return Err(call.shape_error("a past that has no heads"));
        };
        if (b, h, s) != (batch, heads, size) {
            return Err(call.shape_error("a past of other heads"));
        }
        let old = reals(past)?;
        let mut values = Vec::with_capacity(old.len() + self.values.len());
        for line in 0..batch * heads {
            values.extend_from_slice(&old[line * before * size..][..before * size]);
            values.extend_from_slice(&self.values[line * length * size..][..length * size]);
        }
        Ok(Heads { dims: [batch, heads, before + length, size], values })
    }

    pub(super) fn tensor(&self, dtype: DType) -> Result<Tensor, EvalError> {
        real_tensor(dtype, &self.dims, self.values.clone())
    }
}

/// `[a, b, c, d]` as `[a, c, b, d]`.
pub(super) fn swap(values: &[f64], [a, b, c, d]: [usize; 4]) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for i in 0..a {
        for k in 0..c {
            for j in 0..b {
                out.extend_from_slice(&values[((i * b + j) * c + k) * d..][..d]);
            }
        }
    }
    out
}

/// How many heads an attribute states; 0 if it is missing.
pub(super) fn count(call: &Call, name: &str) -> Result<usize, EvalError> {
    usize::try_from(call.int(name, 0)?).map_err(|_| call.shape_error("a negative number of heads"))
}
