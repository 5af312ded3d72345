//! Which keys a query of an attention may see, and what is added to its scores.

use super::{
    EvalError,
    call::Call,
    index::broadcast_to,
    values::{bools, ints, reals},
};
use crate::tensor::{DType, Tensor};

/// What is added to each score, by batch, head, query and key.
pub(super) type Bias<'a> = Box<dyn Fn(usize, usize, usize, usize) -> f64 + 'a>;

/// The keys that are seen, for each sequence of the batch.
pub(super) struct Seen {
    /// Query `i` stands at key `first + i`.
    first: Vec<i64>,
    /// Keys that are no padding.
    valid: Option<Vec<i64>>,
    /// How many keys before and after its own a query sees; `None`: all.
    left: Option<i64>,
    right: Option<i64>,
}

impl Seen {
    /// Everything, or what is not later, after a past.
    pub(super) fn up_to(causal: bool, before: usize, batch: usize) -> Seen {
        let first = vec![before as i64; batch];
        Seen { first, valid: None, left: None, right: causal.then_some(0) }
    }

    /// `Attention` of the standard. Its queries end where the valid keys end, if their number is an
    /// input, and follow the past otherwise.
    pub(super) fn standard(
        call: &Call,
        before: usize,
        [batch, _, length, _]: [usize; 4],
    ) -> Result<Seen, EvalError> {
        let causal = call.flag("is_causal", false)?;
        let mut seen = Seen::up_to(causal, before, batch);
        if let Some(input) = call.optional(6) {
            let valid = ints(input)?;
            if valid.len() != batch || call.optional(4).is_some() {
                return Err(call.shape_error("lengths of keys that do not fit"));
            }
            seen.first = valid.iter().map(|it| it.saturating_sub(length as i64)).collect();
            seen.valid = Some(valid);
        }
        seen.left = window(call, "left_window_size")?;
        let right = window(call, "right_window_size")?;
        seen.right = if causal { Some(0) } else { right };
        Ok(seen)
    }

    pub(super) fn allows(&self, batch: usize, query: usize, key: usize) -> bool {
        let (own, key) = (self.first[batch].saturating_add(query as i64), key as i64);
        let is_valid = self.valid.as_ref().is_none_or(|it| key < it[batch]);
        let is_late = self.left.is_some_and(|it| own.saturating_sub(key) > it);
        let is_early = self.right.is_some_and(|it| key.saturating_sub(own) > it);
        is_valid && !is_late && !is_early
    }
}

/// -1, the default, is no window.
fn window(call: &Call, name: &str) -> Result<Option<i64>, EvalError> {
    match call.int(name, -1)? {
        -1 => Ok(None),
        it if it >= 0 => Ok(Some(it)),
        it => Err(call.unsupported(&format!("with a `{name}` of {it}"))),
    }
}

/// A bias or a mask of booleans that broadcasts to `[batch, heads, length, total]`.
pub(super) fn bias<'a>(
    call: &Call,
    input: Option<&Tensor>,
    core: [usize; 4],
) -> Result<Bias<'a>, EvalError> {
    let Some(input) = input else { return Ok(Box::new(|_, _, _, _| 0.0)) };
    let [_, heads, length, total] = core;
    if input.shape.last().is_some_and(|it| *it < total) {
        // The standard fills it up, broadcasting would repeat it.
        return Err(call.unsupported("with a mask of fewer keys"));
    }
    let values = match input.dtype {
        DType::Bool => {
            let hidden = |it: bool| if it { 0.0 } else { f64::NEG_INFINITY };
            bools(input)?.into_iter().map(hidden).collect()
        }
        _ => reals(input)?,
    };
    let at: Vec<usize> = broadcast_to(&input.shape, &core)?.collect();
    Ok(Box::new(move |n, h, i, j| values[at[((n * heads + h) * length + i) * total + j]]))
}

#[cfg(test)]
mod tests {
    use crate::{
        eval::{EvalError, testing::*},
        ir::Attrs,
        tensor::{DType, Tensor},
    };

    /// One head of size 1 whose scores are equal: results are means of the values that are seen,
    /// which are 1, 2, 4 and so on.
    fn means(
        [length, total]: [usize; 2],
        more: &[Option<Tensor>],
        attrs: Attrs,
    ) -> Result<Tensor, EvalError> {
        let values: Vec<f32> = (0..total).map(|it| (1 << it) as f32).collect();
        let zeros = |n: usize| Some(f32s(&[1, n, 1], &vec![0.0; n]));
        let mut inputs = vec![zeros(length), zeros(total), Some(f32s(&[1, total, 1], &values))];
        inputs.extend(more.iter().cloned());
        let attrs = attrs.with("q_num_heads", 1i64).with("kv_num_heads", 1i64);
        Ok(eval_at(25, "Attention", &inputs, attrs, 1)?.remove(0))
    }

    fn causal() -> Attrs {
        Attrs::default().with("is_causal", 1i64)
    }

    #[test]
    fn without_a_past_queries_begin_at_the_first_key() {
        close(&means([2, 4], &[], causal()).unwrap(), &[1.0, 1.5]);
        close(&means([2, 1], &[], causal()).unwrap(), &[1.0, 1.0]);
    }

    #[test]
    fn queries_end_where_the_valid_keys_end() {
        let lengths = |n: i64| [None, None, None, Some(i64s(&[1], &[n]))];
        close(&means([2, 4], &lengths(3), causal()).unwrap(), &[1.5, 7.0 / 3.0]);
        close(&means([2, 4], &lengths(3), Attrs::default()).unwrap(), &[7.0 / 3.0; 2]);
        // The first of two queries stands before the first key.
        close(&means([2, 4], &lengths(1), causal()).unwrap(), &[0.0, 1.0]);
    }

    #[test]
    fn a_query_that_sees_nothing_gets_zeros() {
        let mask = |it: &[u8]| [Some(raw(DType::Bool, &[2, 2], it))];
        close(&means([2, 2], &mask(&[0, 0, 1, 0]), Attrs::default()).unwrap(), &[0.0, 1.0]);
        close(&means([2, 2], &mask(&[0, 1, 1, 1]), causal()).unwrap(), &[0.0, 1.5]);
    }

    #[test]
    fn windows_hide_what_is_far() {
        let left = Attrs::default().with("left_window_size", 0i64);
        close(&means([2, 2], &[], left.clone()).unwrap(), &[1.5, 2.0]);
        close(&means([2, 2], &[], left.with("right_window_size", 0i64)).unwrap(), &[1.0, 2.0]);
        let odd = Attrs::default().with("left_window_size", -2i64);
        assert!(means([2, 2], &[], odd).is_err());
    }

    #[test]
    fn a_short_mask_is_not_repeated() {
        let mask = [Some(f32s(&[2, 1], &[0.0, 0.0]))];
        assert!(means([2, 2], &mask, Attrs::default()).is_err());
    }
}
