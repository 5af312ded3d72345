//! Attention of the standard and of `com.microsoft`.

use super::{
    EvalError,
    call::Call,
    heads::{self, Heads, swap},
    index::elements,
    rotary::{Rotation, all_positions},
    seen::{Bias, Seen, bias},
    table::Outputs,
    values::{ints, real_tensor},
};
use crate::tensor::Tensor;

struct Core<'a> {
    q: Heads,
    k: Heads,
    v: Heads,
    scale: f64,
    softcap: f64,
    bias: Bias<'a>,
    seen: Seen,
    /// What a query gets that sees no key: the standard says zeros, `com.microsoft` nothing.
    blind_is_zero: bool,
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
                    let weights = self.weights(call, [n, head, group, at])?;
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

    /// How much a query takes of each key.
    fn weights(
        &self,
        call: &Call,
        [batch, head, group, at]: [usize; 4],
    ) -> Result<Vec<f64>, EvalError> {
        let query = self.q.row(batch, head, at);
        let hidden = |key: usize| match self.seen.allows(batch, at, key) {
            true => (self.bias)(batch, head, at, key),
            false => f64::NEG_INFINITY,
        };
        let biases: Vec<f64> = (0..self.k.dims[2]).map(hidden).collect();
        if biases.iter().all(|it| *it == f64::NEG_INFINITY) {
            return match self.blind_is_zero {
                true => Ok(vec![0.0; biases.len()]),
                false => Err(call.unsupported("where a query sees no key")),
            };
        }
        let mut line: Vec<f64> = biases
            .into_iter()
            .enumerate()
            .map(|(key, bias)| {
                let product = query.iter().zip(self.k.row(batch, group, key));
                let mut score = self.scale * product.map(|(a, b)| a * b).sum::<f64>();
                if self.softcap > 0.0 {
                    score = self.softcap * (score / self.softcap).tanh();
                }
                score + bias
            })
            .collect();
        let most = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.iter_mut().for_each(|it| *it = (*it - most).exp());
        let sum: f64 = line.iter().sum();
        line.iter_mut().for_each(|it| *it /= sum);
        Ok(line)
    }
}

/// Keys of the past, which is input `index`.
fn before(call: &Call, index: usize) -> usize {
    call.optional(index).and_then(|it| it.shape.get(2).copied()).unwrap_or(0)
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

/// `Attention` of opset 23.
pub(super) fn attention(call: &Call) -> Outputs {
    if call.outputs > 3 {
        return Err(call.unsupported("with scores as an output"));
    }
    let groups = heads::count(call, "kv_num_heads")?;
    let q = Heads::of(call, 0, heads::count(call, "q_num_heads")?)?;
    let k = Heads::of(call, 1, groups)?.after(call, call.optional(4))?;
    let v = Heads::of(call, 2, groups)?.after(call, call.optional(5))?;
    let dims = [q.dims[0], q.dims[1], q.dims[2], k.dims[2]];
    let core = Core {
        scale: scale(call, &q)?,
        softcap: call.float("softcap", 0.0)?,
        bias: bias(call, call.optional(3), dims)?,
        seen: Seen::standard(call, before(call, 4), dims)?,
        blind_is_zero: true,
        q,
        k,
        v,
    };
    outputs(call, &core, true)
}

/// `com.microsoft.MultiHeadAttention` with separate queries, keys and values.
pub(super) fn multi_head_attention(call: &Call) -> Outputs {
    if call.optional(3).or(call.optional(4)).is_some() || call.outputs > 3 {
        return Err(call.unsupported("with a bias of the projection or a padding mask"));
    }
    let count = heads::count(call, "num_heads")?;
    let q = Heads::of(call, 0, count)?;
    let k = Heads::of(call, 1, count)?.after(call, call.optional(6))?;
    let v = Heads::of(call, 2, count)?.after(call, call.optional(7))?;
    let dims = [q.dims[0], q.dims[1], q.dims[2], k.dims[2]];
    let core = Core {
        scale: scale(call, &q)?,
        softcap: 0.0,
        bias: bias(call, call.optional(5), dims)?,
        seen: Seen::up_to(call.flag("unidirectional", false)?, before(call, 6), dims[0]),
        blind_is_zero: false,
        q,
        k,
        v,
    };
    outputs(call, &core, false)
}

/// `com.microsoft.GroupQueryAttention` of float caches without padding: every sequence of the
/// batch has the whole length.
pub(super) fn group_query_attention(call: &Call) -> Outputs {
    let plain = call.int("local_window_size", -1)? < 0 && call.optional(11).is_none();
    if !plain || call.int("kv_cache_bit_width", 0)? != 0 || call.optional(14).is_some() {
        return Err(call.unsupported("with a window, sinks, norms or a quantized cache"));
    }
    let groups = heads::count(call, "kv_num_heads")?;
    let (mut q, mut k) =
        (Heads::of(call, 0, heads::count(call, "num_heads")?)?, Heads::of(call, 1, groups)?);
    let before = before(call, 3);
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
        bias: bias(call, call.optional(10), dims)?,
        seen: Seen::up_to(call.flag("causal", true)?, before, dims[0]),
        blind_is_zero: false,
        q,
        k,
        v,
    };
    outputs(call, &core, false)
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
}
