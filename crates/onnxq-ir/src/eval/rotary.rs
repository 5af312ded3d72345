//! Rotary position embeddings of the standard and of `com.microsoft`.

use super::{
    EvalError,
    call::Call,
    heads::{self, Heads, swap},
    table::Outputs,
    values::{ints, real_tensor},
};

/// Cosines and sines by position.
pub(super) struct Rotation {
    half: usize,
    cos: Vec<f64>,
    sin: Vec<f64>,
    interleaved: bool,
}

impl Rotation {
    pub(super) fn of(call: &Call, cos: usize, sin: usize) -> Result<Rotation, EvalError> {
        let half = call.input(cos)?.shape.last().copied().unwrap_or(0);
        let name = if call.op.is("com.microsoft.GroupQueryAttention") {
            "rotary_interleaved"
        } else {
            "interleaved"
        };
        let interleaved = call.flag(name, false)?;
        Ok(Rotation { half, cos: call.reals(cos)?, sin: call.reals(sin)?, interleaved })
    }

    /// Turns each pair of elements by the angle of its position; the rest stays.
    pub(super) fn turn(
        &self,
        call: &Call,
        x: &mut Heads,
        positions: &[usize],
    ) -> Result<(), EvalError> {
        let [batch, heads, length, size] = x.dims;
        let rows = self.cos.len() / self.half.max(1);
        let fits = self.half > 0 && 2 * self.half <= size && self.cos.len() == self.sin.len();
        if !fits || positions.iter().any(|it| *it >= rows) {
            return Err(call.shape_error("a rotation that does not fit"));
        }
        for line in 0..batch * heads * length {
            let (n, at) = (line / length / heads, line % length);
            let row = &mut x.values[line * size..][..size];
            let start = positions[n * length + at] * self.half;
            for i in 0..self.half {
                let (a, b) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + self.half) };
                let (cos, sin) = (self.cos[start + i], self.sin[start + i]);
                (row[a], row[b]) = (row[a] * cos - row[b] * sin, row[a] * sin + row[b] * cos);
            }
        }
        Ok(())
    }
}

/// The position of each token of a batch, row by row.
pub(super) fn all_positions(
    batch: usize,
    length: usize,
    of: impl Fn(usize, usize) -> Result<usize, EvalError>,
) -> Result<Vec<usize>, EvalError> {
    (0..batch * length).map(|it| of(it / length, it % length)).collect()
}

/// `RotaryEmbedding` of opset 23: input, cosines, sines, positions.
pub(super) fn rotary(call: &Call) -> Outputs {
    rotate(call, [1, 2, 3], "num_heads")
}

/// `com.microsoft.RotaryEmbedding`: input, positions, cosines, sines.
pub(super) fn rotary_of_microsoft(call: &Call) -> Outputs {
    rotate(call, [2, 3, 1], "num_heads")
}

fn rotate(call: &Call, [cos, sin, at]: [usize; 3], count: &str) -> Outputs {
    let table = Rotation::of(call, cos, sin)?;
    let input = call.input(0)?;
    let count = match (heads::count(call, count)?, &input.shape[..]) {
        // Without heads the table says how wide one is.
        (0, [_, _, hidden]) => hidden / (2 * table.half).max(1),
        (it, _) => it,
    };
    let mut x = Heads::of(call, 0, count)?;
    let (batch, length) = (x.dims[0], x.dims[2]);
    let given = call.optional(at).map(ints).transpose()?;
    let positions = all_positions(batch, length, |n, i| {
        let it = match &given {
            // A row of the table for each token.
            None => (n * length + i) as i64,
            Some(it) if it.len() == 1 => it[0] + i as i64,
            Some(it) => it.get(n * length + i).copied().unwrap_or(-1),
        };
        usize::try_from(it).map_err(|_| call.shape_error("a position that does not fit"))
    })?;
    table.turn(call, &mut x, &positions)?;
    let values = match input.shape.len() {
        3 => swap(&x.values, x.dims),
        _ => x.values,
    };
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs, tensor::Tensor};

    /// A quarter turn takes (1, 0) to (0, 1).
    #[test]
    fn rotations_turn_pairs() {
        let x = f32s(&[1, 1, 4], &[1., 2., 0., 0.]);
        let (cos, sin) = (f32s(&[1, 2], &[0., 1.]), f32s(&[1, 2], &[1., 0.]));
        let at = Tensor::from_i64(&[1], [0]);
        let op = "com.microsoft.RotaryEmbedding";
        let out = eval(op, &[&x, &at, &cos, &sin], Attrs::default()).unwrap();
        close(&out, &[0., 2., 1., 0.]);
    }
}
