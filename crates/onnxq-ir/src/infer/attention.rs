//! Attention, of the standard and of `com.microsoft`.

use super::{
    call::{Call, Types, tensor},
    dims,
    expr::Expr,
};
use crate::tensor::{Dim, Shape};

/// A positive count from an attribute.
fn count(c: &Call, name: &str) -> Dim {
    dims::from_int(c.int_or(name, -1))
}

/// `Attention` of the standard: the result, keys and values with the past, the scores.
pub(super) fn attention(c: &Call) -> Types {
    let (Some(query), Some(key), Some(value)) = (c.shape(0), c.shape(1), c.shape(2)) else {
        return vec![c.dtype(0).map(|it| tensor(it, None))];
    };
    let heads = |it: Shape, name: &str| match &it[..] {
        [batch, heads, length, size] => Some([batch, heads, length, size].map(Dim::clone)),
        [batch, length, hidden] => {
            let heads = count(c, name);
            let size = dims::div_exact(hidden, &heads);
            Some([batch.clone(), heads, length.clone(), size])
        }
        _ => None,
    };
    let flat = query.len() == 3;
    let (Some(q), Some(k), Some(v)) =
        (heads(query, "q_num_heads"), heads(key, "kv_num_heads"), heads(value, "kv_num_heads"))
    else {
        return Vec::new();
    };
    let total = with_past(c, 4, &k[2]);
    let [batch, q_heads, length, _] = q;
    let result = match flat {
        true => vec![batch.clone(), length.clone(), dims::mul(&q_heads, &v[3])],
        false => vec![batch.clone(), q_heads.clone(), length.clone(), v[3].clone()],
    };
    let present = |it: [Dim; 4]| {
        let [batch, heads, _, size] = it;
        vec![batch, heads, total.clone(), size]
    };
    let shapes = [result, present(k), present(v), vec![batch, q_heads, length, total.clone()]];
    shapes.into_iter().map(|it| Some(tensor(c.dtype(0)?, Some(it)))).collect()
}

/// The length of keys with those of the past, at input `past` as `[batch, heads, past, size]`.
fn with_past(c: &Call, past: usize, length: &Dim) -> Dim {
    if c.has(past) { dims::add(&c.dim(past, 2), length) } else { length.clone() }
}

/// `com.microsoft.Attention` and `QAttention`: `[batch, sequence, hidden]` and keys with values.
pub(super) fn packed_attention(c: &Call, dtype_of: usize) -> Types {
    let Some(dtype) = c.dtype(dtype_of) else { return Vec::new() };
    let sizes = c.ints_attr("qkv_hidden_sizes").and_then(|it| it.get(2).copied());
    let hidden = match sizes {
        Some(it) => dims::from_int(it),
        None => dims::div_exact(&c.dim(1, 1), &3.into()),
    };
    let result = vec![c.dim(0, 0), c.dim(0, 1), hidden.clone()];
    let heads = count(c, "num_heads");
    // With a past the present is longer by it, unless both share one buffer.
    let past = if dtype_of == 0 { 4 } else { 8 };
    let total = match (c.flag("past_present_share_buffer"), c.has(past)) {
        (false, true) => dims::add(&c.dim(past, 3), &c.dim(0, 1)),
        (false, false) => c.dim(0, 1),
        (true, _) => c.dim(past, 3),
    };
    let size = dims::div_exact(&hidden, &heads);
    let present = vec![Dim::Fixed(2), c.dim(0, 0), heads, total, size];
    vec![Some(tensor(dtype, Some(result))), Some(tensor(dtype, Some(present)))]
}

/// `com.microsoft.MultiHeadAttention`: the result, keys and values with the past.
pub(super) fn multi_head_attention(c: &Call) -> Types {
    let Some(dtype) = c.dtype(0) else { return Vec::new() };
    let heads = count(c, "num_heads");
    let (length, key_size, hidden) = match (c.rank(0), c.rank(1), c.rank(2)) {
        // Query, key and value in one: [batch, sequence, heads, 3, size].
        (Some(5), ..) => (c.dim(0, 1), c.dim(0, 4), dims::mul(&c.dim(0, 2), &c.dim(0, 4))),
        // Key and value in one: [batch, length, heads, 2, size].
        (_, Some(5), _) => (c.dim(1, 1), c.dim(1, 4), dims::mul(&c.dim(1, 2), &c.dim(1, 4))),
        (_, Some(4), _) => (c.dim(1, 2), c.dim(1, 3), dims::mul(&heads, &c.dim(2, 3))),
        _ => (c.dim(1, 1), dims::div_exact(&c.dim(1, 2), &heads), c.dim(2, 2)),
    };
    let result = vec![c.dim(0, 0), c.dim(0, 1), hidden.clone()];
    let total = with_past(c, 6, &length);
    let present = |size| vec![c.dim(0, 0), heads.clone(), total.clone(), size];
    let shapes = [result, present(key_size), present(dims::div_exact(&hidden, &heads))];
    shapes.into_iter().map(|it| Some(tensor(dtype, Some(it)))).collect()
}

/// `com.microsoft.GroupQueryAttention`: the result, keys and values with the past.
pub(super) fn group_query_attention(c: &Call) -> Types {
    let Some(dtype) = c.dtype(0) else { return Vec::new() };
    let (heads, kv_heads) = (count(c, "num_heads"), count(c, "kv_num_heads"));
    // Without keys the query holds all three.
    let packed = !c.has(1);
    let parts =
        if packed { dims::add(&heads, &dims::add(&kv_heads, &kv_heads)) } else { heads.clone() };
    let size = dims::div_exact(&c.dim(0, 2), &parts);
    let hidden = if packed { dims::mul(&size, &heads) } else { c.dim(0, 2) };
    let result = vec![c.dim(0, 0), c.dim(0, 1), hidden];
    let present = |past: usize| {
        let dtype = c.dtype(past).unwrap_or(dtype);
        let shape = vec![c.dim(0, 0), kv_heads.clone(), present_length(c), size.clone()];
        Some(tensor(dtype, Some(shape)))
    };
    vec![Some(tensor(dtype, Some(result))), present(3), present(4)]
}

/// The buffer of the past is used again if all fits, so the longer of the two counts.
fn present_length(c: &Call) -> Dim {
    let total = c.scalar(6);
    let past = if c.has(3) { Expr::of(&c.dim(3, 2)) } else { Some(Expr::from(0)) };
    dims::to_dim(total.zip(past).and_then(|(total, past)| {
        let longer = |a: &Expr, b: &Expr| a.sub(b).is_some_and(|it| it.at_least(0));
        if longer(&total, &past) {
            return Some(total);
        }
        longer(&past, &total).then_some(past)
    }))
}
