//! Operators that compare along an axis: `ArgMax`, `ArgMin`, `TopK`; and `CumSum`, which adds.

use std::cmp::Ordering;

use super::{
    EvalError,
    call::{Call, wrong},
    index::{self, around, axis, elements, pick},
    table::Outputs,
    values::{Values, one_int},
};
use crate::tensor::{DType, Tensor};

/// The first (or last) index of the greatest element along an axis.
pub(super) fn arg_max(call: &Call) -> Outputs {
    arg_best(call, Ordering::Greater)
}

pub(super) fn arg_min(call: &Call) -> Outputs {
    arg_best(call, Ordering::Less)
}

/// The greatest elements and their indices; of equal ones the first.
pub(super) fn top_k(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let axis = call.axis(-1, input.shape.len())?;
    let (outer, size, inner) = around(&input.shape, axis);
    let missing = || wrong("k", "is missing");
    let k = match call.optional(1) {
        Some(it) => one_int(it)?,
        None => call.attrs.get("k").map(|_| call.int("k", 0)).ok_or_else(missing)??,
    };
    let k = usize::try_from(k).ok().filter(|it| *it <= size);
    let k = k.ok_or_else(|| call.shape_error("`k` is not within the axis"))?;
    let largest = call.flag("largest", true)?;
    let order = order_of(input)?;
    let mut shape = input.shape.clone();
    shape[axis] = k;
    let mut places = vec![0; elements(&shape)?];
    for line in 0..outer * inner {
        let (row, column) = (line / inner, line % inner);
        let at = |it: usize| (row * size + it) * inner + column;
        let mut list: Vec<usize> = (0..size).collect();
        list.sort_by(|a, b| {
            let order = order(at(*a), at(*b));
            if largest { order.reverse() } else { order }
        });
        for (rank, it) in list.into_iter().take(k).enumerate() {
            places[(row * k + rank) * inner + column] = it;
        }
    }
    let indices = Tensor::from_i64(&shape, places.iter().map(|it| *it as i64));
    let at = places.iter().enumerate().map(|(i, it)| {
        let (row, column) = (i / inner / k, i % inner);
        (row * size + it) * inner + column
    });
    Ok(vec![pick(input, &shape, at)?, indices])
}

/// Sums of prefixes along an axis, or of suffixes.
pub(super) fn cum_sum(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let axis = axis(one_int(call.input(1)?)?, input.shape.len())?;
    let (exclusive, reverse) = (call.flag("exclusive", false)?, call.flag("reverse", false)?);
    let parts = around(&input.shape, axis);
    let mut values = Values::of(input)?;
    match &mut values {
        Values::Real(it) => prefix_sums(it, parts, 0.0, exclusive, reverse, |a, b| a + b),
        Values::Int(it) => prefix_sums(it, parts, 0, exclusive, reverse, i128::wrapping_add),
        _ => return Err(EvalError::Type { expected: "numbers", got: input.dtype }),
    }
    Ok(vec![values.tensor(input.dtype, &input.shape)?])
}

fn prefix_sums<T: Copy>(
    values: &mut [T],
    (outer, size, inner): (usize, usize, usize),
    zero: T,
    exclusive: bool,
    reverse: bool,
    add: fn(T, T) -> T,
) {
    for line in 0..outer * inner {
        let start = line / inner * size * inner + line % inner;
        let mut sum = zero;
        for step in 0..size {
            let step = if reverse { size - 1 - step } else { step };
            let value = &mut values[start + step * inner];
            let next = add(sum, *value);
            *value = if exclusive { sum } else { next };
            sum = next;
        }
    }
}

fn arg_best(call: &Call, better: Ordering) -> Outputs {
    let input = call.input(0)?;
    let axis = call.axis(0, input.shape.len())?;
    let (outer, size, inner) = around(&input.shape, axis);
    let last = call.flag("select_last_index", false)?;
    let mut shape = input.shape.clone();
    shape[axis] = 1;
    if size == 0 && elements(&shape)? > 0 {
        return Err(call.shape_error("the axis is empty"));
    }
    let order = order_of(input)?;
    let best = |line: usize| {
        let at = |it: usize| (line / inner * size + it) * inner + line % inner;
        let wins = |a: usize, b: usize| {
            let order = order(at(a), at(b));
            order == better || (last && order == Ordering::Equal)
        };
        (1..size).fold(0, |best, it| if wins(it, best) { it } else { best }) as i64
    };
    let indices: Vec<i64> = (0..outer * inner).map(best).collect();
    if !call.flag("keepdims", true)? {
        shape.remove(axis);
    }
    Ok(vec![Tensor::from_i64(&shape, indices)])
}

/// How two elements of a tensor compare, by their offsets; NaN is the greatest.
fn order_of(tensor: &Tensor) -> Result<Box<dyn Fn(usize, usize) -> Ordering>, EvalError> {
    Ok(match Values::of(tensor)? {
        Values::Int(it) => Box::new(move |a, b| it[a].cmp(&it[b])),
        // Adding zero makes -0 equal to 0.
        Values::Real(it) => Box::new(move |a, b| (it[a] + 0.0).total_cmp(&(it[b] + 0.0))),
        _ => return Err(EvalError::Type { expected: "numbers", got: tensor.dtype }),
    })
}

/// The distinct elements in ascending order or in order of appearance.
pub(super) fn unique(call: &Call) -> Outputs {
    let input = call.input(0)?;
    if call.attrs.get("axis").is_some() || call.outputs > 1 {
        return Err(call.unsupported("along an axis or with indices"));
    }
    let order: Box<dyn Fn(usize, usize) -> Ordering> = match input.dtype {
        DType::String => return Err(call.unsupported("of strings")),
        _ => order_of(input)?,
    };
    let mut list: Vec<usize> = (0..input.numel()).collect();
    list.sort_by(|a, b| order(*a, *b));
    list.dedup_by(|a, b| order(*a, *b) == Ordering::Equal);
    if !call.flag("sorted", true)? {
        list.sort_unstable();
    }
    let shape = [list.len()];
    Ok(vec![index::pick(input, &shape, list.into_iter())?])
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn ties_go_to_the_first() {
        let x = f32s(&[2, 3], &[1., 5., 5., -0., 0., -1.]);
        let axis = || Attrs::default().with("axis", 1i64);
        let first = eval("ArgMax", &[&x], axis()).unwrap();
        assert_eq!(first.to_i64().unwrap(), [1, 0]);
        let last = eval("ArgMax", &[&x], axis().with("select_last_index", 1i64)).unwrap();
        assert_eq!(last.to_i64().unwrap(), [2, 1]);
        let inputs = [Some(x), Some(i64s(&[1], &[2]))];
        let top = eval_at(11, "TopK", &inputs, Attrs::default(), 2).unwrap();
        close(&top[0], &[5., 5., 0., 0.]);
        assert_eq!(top[1].to_i64().unwrap(), [1, 2, 0, 1]);
    }

    #[test]
    fn sums_accumulate_from_either_end() {
        let (x, axis) = (i64s(&[3], &[1, 2, 3]), i64s(&[], &[0]));
        let sums = |attrs| eval("CumSum", &[&x, &axis], attrs).unwrap().to_i64().unwrap();
        assert_eq!(sums(Attrs::default()), [1, 3, 6]);
        assert_eq!(sums(Attrs::default().with("reverse", 1i64)), [6, 5, 3]);
        assert_eq!(sums(Attrs::default().with("exclusive", 1i64)), [0, 1, 3]);
    }
}
