//! Attention of the standard and of `com.microsoft`, and rotary position embeddings.

use super::{
    EvalError,
    call::Call,
    index::{broadcast_to, elements},
    table::Outputs,
    values::{bools, ints, real_tensor, reals},
};
use crate::tensor::{DType, Tensor};

/// Values as `[batch, heads, length, size]`.
struct Heads {
    dims: [usize; 4],
    values: Vec<f64>,
}

impl Heads {
    /// Of `[batch, heads, length, size]`, or of `[batch, length, heads · size]`.
    fn of(call: &Call, index: usize, heads: usize) -> Result<Heads, EvalError> {
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

    fn row(&self, batch: usize, head: usize, at: usize) -> &[f64] {
        let [_, heads, length, size] = self.dims;
        let start = ((batch * heads + head) * length + at) * size;
        &self.values[start..start + size]
    }

    /// `past` and then `self` along the length.
    fn after(self, call: &Call, past: Option<&Tensor>) -> Result<Heads, EvalError> {
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

    fn tensor(&self, dtype: DType) -> Result<Tensor, EvalError> {
        real_tensor(dtype, &self.dims, self.values.clone())
    }
}

/// `[a, b, c, d]` as `[a, c, b, d]`.
fn swap(values: &[f64], [a, b, c, d]: [usize; 4]) -> Vec<f64> {
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

/// What is added to each score, by batch, head, query and key.
type Bias<'a> = Box<dyn Fn(usize, usize, usize, usize) -> f64 + 'a>;

struct Core<'a> {
    q: Heads,
    k: Heads,
    v: Heads,
    scale: f64,
    softcap: f64,
    bias: Bias<'a>,
    /// Query `i` sees the first `past + i + 1` keys.
    causal: bool,
}

impl Core<'_> {
    /// `softmax(scale · q kᵀ + bias) v` as `[batch, heads, length, size]`.
    fn run(&self, call: &Call) -> Result<Heads, EvalError> {
        let ([batch, heads, length, size], [b, groups, total, k_size]) = (self.q.dims, self.k.dims);
        let [_, v_heads, v_total, v_size] = self.v.dims;
        let fits = b == batch && size == k_size && v_total == total && v_heads == groups;
        if !fits || groups == 0 || heads % groups != 0 || self.v.dims[0] != batch {
            return Err(call.shape_error("queries, keys and values differ"));
        }
        elements(&[batch, heads, length, v_size.max(total)])?;
        let mut values = Vec::with_capacity(batch * heads * length * v_size);
        for n in 0..batch {
            for head in 0..heads {
                let group = head / (heads / groups);
                for at in 0..length {
                    let weights = self.weights(n, head, group, at);
                    let mut row = vec![0.0; v_size];
                    for (key, weight) in weights.into_iter().enumerate() {
                        let value = self.v.row(n, group, key);
                        row.iter_mut().zip(value).for_each(|(it, v)| *it += weight * v);
                    }
                    values.extend(row);
                }
            }
        }
        Ok(Heads { dims: [batch, heads, length, v_size], values })
    }

    fn weights(&self, batch: usize, head: usize, group: usize, at: usize) -> Vec<f64> {
        let ([.., length, _], [.., total, _]) = (self.q.dims, self.k.dims);
        let query = self.q.row(batch, head, at);
        let last = (total + at).saturating_sub(length);
        let mut line: Vec<f64> = (0..total)
            .map(|key| {
                if self.causal && key > last {
                    return f64::NEG_INFINITY;
                }
                let product = query.iter().zip(self.k.row(batch, group, key));
                let mut score = self.scale * product.map(|(a, b)| a * b).sum::<f64>();
                if self.softcap > 0.0 {
                    score = self.softcap * (score / self.softcap).tanh();
                }
                score + (self.bias)(batch, head, at, key)
            })
            .collect();
        let most = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.iter_mut().for_each(|it| *it = (*it - most).exp());
        let sum: f64 = line.iter().sum();
        line.iter_mut().for_each(|it| *it /= sum);
        line
    }
}

/// A bias or a mask of booleans that broadcasts to `[batch, heads, length, total]`.
fn bias<'a>(input: Option<&Tensor>, core: [usize; 4]) -> Result<Bias<'a>, EvalError> {
    let Some(input) = input else { return Ok(Box::new(|_, _, _, _| 0.0)) };
    let values = match input.dtype {
        DType::Bool => {
            let hidden = |it: bool| if it { 0.0 } else { f64::NEG_INFINITY };
            bools(input)?.into_iter().map(hidden).collect()
        }
        _ => reals(input)?,
    };
    let at = broadcast_to(&input.shape, &core)?;
    let at: Vec<usize> = at.collect();
    let [_, heads, length, total] = core;
    Ok(Box::new(move |n, h, i, j| values[at[((n * heads + h) * length + i) * total + j]]))
}

/// The default is `1 / √size`.
fn scale(call: &Call, q: &Heads) -> Result<f64, EvalError> {
    match call.float("scale", 0.0)? {
        0.0 => Ok(1.0 / (q.dims[3] as f64).sqrt()),
        it => Ok(it),
    }
}

fn flat(call: &Call, it: &Heads) -> Result<Tensor, EvalError> {
    let [batch, heads, length, size] = it.dims;
    let values = swap(&it.values, it.dims);
    real_tensor(call.input(0)?.dtype, &[batch, length, heads * size], values)
}

/// Outputs: the result, keys and values with those of the past.
fn outputs(call: &Call, core: &Core, like_input: bool) -> Outputs {
    let result = core.run(call)?;
    let dtype = call.input(0)?.dtype;
    let result = match like_input && call.input(0)?.shape.len() == 4 {
        true => result.tensor(dtype)?,
        false => flat(call, &result)?,
    };
    Ok(vec![result, core.k.tensor(dtype)?, core.v.tensor(dtype)?])
}

fn heads(call: &Call, name: &str) -> Result<usize, EvalError> {
    usize::try_from(call.int(name, 0)?).map_err(|_| call.shape_error("a negative number of heads"))
}

/// `Attention` of opset 23.
pub fn attention(call: &Call) -> Outputs {
    if call.outputs > 3 {
        return Err(call.unsupported("with scores as an output"));
    }
    let groups = heads(call, "kv_num_heads")?;
    let q = Heads::of(call, 0, heads(call, "q_num_heads")?)?;
    let k = Heads::of(call, 1, groups)?.after(call, call.optional(4))?;
    let v = Heads::of(call, 2, groups)?.after(call, call.optional(5))?;
    let dims = [q.dims[0], q.dims[1], q.dims[2], k.dims[2]];
    let core = Core {
        scale: scale(call, &q)?,
        softcap: call.float("softcap", 0.0)?,
        bias: bias(call.optional(3), dims)?,
        causal: call.flag("is_causal", false)?,
        q,
        k,
        v,
    };
    outputs(call, &core, true)
}

/// `com.microsoft.MultiHeadAttention` with separate queries, keys and values.
pub fn multi_head_attention(call: &Call) -> Outputs {
    if call.optional(3).or(call.optional(4)).is_some() || call.outputs > 3 {
        return Err(call.unsupported("with a bias of the projection or a padding mask"));
    }
    let count = heads(call, "num_heads")?;
    let q = Heads::of(call, 0, count)?;
    let k = Heads::of(call, 1, count)?.after(call, call.optional(6))?;
    let v = Heads::of(call, 2, count)?.after(call, call.optional(7))?;
    let dims = [q.dims[0], q.dims[1], q.dims[2], k.dims[2]];
    let core = Core {
        scale: scale(call, &q)?,
        softcap: 0.0,
        bias: bias(call.optional(5), dims)?,
        causal: call.flag("unidirectional", false)?,
        q,
        k,
        v,
    };
    outputs(call, &core, false)
}

/// `com.microsoft.GroupQueryAttention` of float caches without padding: every sequence of the
/// batch has the whole length.
pub fn group_query_attention(call: &Call) -> Outputs {
    let plain = call.int("local_window_size", -1)? < 0 && call.optional(11).is_none();
    if !plain || call.int("kv_cache_bit_width", 0)? != 0 || call.optional(14).is_some() {
        return Err(call.unsupported("with a window, sinks, norms or a quantized cache"));
    }
    let groups = heads(call, "kv_num_heads")?;
    let (mut q, mut k) =
        (Heads::of(call, 0, heads(call, "num_heads")?)?, Heads::of(call, 1, groups)?);
    let before = call.optional(3).map_or(0, |it| it.shape.get(2).copied().unwrap_or(0));
    if call.flag("do_rotary", false)? {
        let table = Rotation::of(call, 7, 8)?;
        let positions = |n: usize, at: usize| match call.optional(9) {
            None => Ok(before + at),
            Some(it) => {
                let it = ints(it)?.get(n * q.dims[2] + at).copied().unwrap_or(-1);
                usize::try_from(it).map_err(|_| call.shape_error("a position that does not fit"))
            }
        };
        let at = all_positions(q.dims[0], q.dims[2], positions)?;
        table.turn(call, &mut q, &at)?;
        table.turn(call, &mut k, &at)?;
    }
    let k = k.after(call, call.optional(3))?;
    let v = Heads::of(call, 2, groups)?.after(call, call.optional(4))?;
    let whole =
        |it: &Tensor| Ok::<_, EvalError>(ints(it)?.iter().all(|n| *n + 1 == k.dims[2] as i64));
    if !whole(call.input(5)?)? {
        return Err(call.unsupported("with padding"));
    }
    let dims = [q.dims[0], q.dims[1], q.dims[2], k.dims[2]];
    let core = Core {
        scale: scale(call, &q)?,
        softcap: call.float("softcap", 0.0)?,
        bias: bias(call.optional(10), dims)?,
        causal: call.flag("causal", true)?,
        q,
        k,
        v,
    };
    outputs(call, &core, false)
}

/// Cosines and sines by position.
struct Rotation {
    half: usize,
    cos: Vec<f64>,
    sin: Vec<f64>,
    interleaved: bool,
}

impl Rotation {
    fn of(call: &Call, cos: usize, sin: usize) -> Result<Rotation, EvalError> {
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
    fn turn(&self, call: &Call, x: &mut Heads, positions: &[usize]) -> Result<(), EvalError> {
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

fn all_positions(
    batch: usize,
    length: usize,
    of: impl Fn(usize, usize) -> Result<usize, EvalError>,
) -> Result<Vec<usize>, EvalError> {
    (0..batch * length).map(|it| of(it / length, it % length)).collect()
}

/// `RotaryEmbedding` of opset 23: input, cosines, sines, positions.
pub fn rotary(call: &Call) -> Outputs {
    rotate(call, [1, 2, 3], "num_heads")
}

/// `com.microsoft.RotaryEmbedding`: input, positions, cosines, sines.
pub fn rotary_of_microsoft(call: &Call) -> Outputs {
    rotate(call, [2, 3, 1], "num_heads")
}

fn rotate(call: &Call, [cos, sin, at]: [usize; 3], count: &str) -> Outputs {
    let table = Rotation::of(call, cos, sin)?;
    let input = call.input(0)?;
    let count = match (heads(call, count)?, &input.shape[..]) {
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

    /// One head of size 1 attends evenly to what it may see.
    #[test]
    fn a_causal_mask_and_a_past() {
        let attrs = Attrs::default().with("q_num_heads", 1i64).with("kv_num_heads", 1i64);
        let zero = f32s(&[1, 2, 1], &[0., 0.]);
        let v = f32s(&[1, 2, 1], &[2., 4.]);
        let causal = attrs.clone().with("is_causal", 1i64);
        close(
            &eval_at(
                23,
                "Attention",
                &[Some(zero.clone()), Some(zero.clone()), Some(v.clone())],
                causal,
                1,
            )
            .unwrap()[0],
            &[2., 3.],
        );
        let past = f32s(&[1, 1, 1, 1], &[0.]);
        let mask = Tensor::from_f32(&[2, 3], [0., 0., -1e9, 0., 0., 0.]);
        let inputs = [&zero, &zero, &v, &mask, &past, &f32s(&[1, 1, 1, 1], &[6.])];
        let inputs = inputs.map(|it| Some(it.clone()));
        let out = eval_at(23, "Attention", &inputs, attrs, 3).unwrap();
        close(&out[0], &[4., 4.]);
        close(&out[2], &[6., 2., 4.]);
    }

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
