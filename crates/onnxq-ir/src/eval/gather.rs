//! Reading elements by position: `Slice` and the `Gather` family.

use super::{
    EvalError,
    call::Call,
    index::{self, Walk, around, axes, elements, pick, position},
    table::Outputs,
    values,
};
use crate::tensor::Tensor;

/// Starts, ends, axes and steps were attributes before version 10.
pub(super) fn slice(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let missing = || EvalError::MissingInput { name: "starts or ends of `Slice`".into() };
    let starts = call.ints_or_input("starts", 1)?.ok_or_else(missing)?;
    let ends = call.ints_or_input("ends", 2)?.ok_or_else(missing)?;
    let all: Vec<i64> = (0..starts.len() as i64).collect();
    let list = axes(&call.ints_or_input("axes", 3)?.unwrap_or(all), input.shape.len())?;
    let steps = call.ints_or_input("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), list.len(), steps.len()].iter().any(|it| *it != starts.len()) {
        return Err(call.shape_error("starts, ends, axes and steps differ in length"));
    }
    let (mut shape, mut strides) = (input.shape.clone(), index::strides(&input.shape));
    let mut first = 0;
    for (i, &axis) in list.iter().enumerate() {
        let (start, len) = extent(starts[i], ends[i], steps[i], shape[axis] as i64)
            .ok_or_else(|| call.shape_error("a step is 0"))?;
        first += start as isize * strides[axis];
        shape[axis] = len;
        // A long step over one element would only overflow.
        strides[axis] = if len > 1 { strides[axis] * steps[i] as isize } else { 0 };
    }
    Ok(vec![pick(input, &shape, Walk::new(&shape, strides, first))?])
}

pub(super) fn gather(call: &Call) -> Outputs {
    let data = call.input(0)?;
    let axis = call.axis(0, data.shape.len())?;
    Ok(vec![take(data, call.input(1)?, axis)?])
}

/// The entries of `data` along `axis` that `indices` names.
pub(super) fn take(data: &Tensor, indices: &Tensor, axis: usize) -> Result<Tensor, EvalError> {
    let (outer, size, inner) = around(&data.shape, axis);
    let shape = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
    elements(&shape)?;
    let places = positions(indices, size)?;
    let at = (0..outer).flat_map(|row| {
        places.iter().flat_map(move |it| {
            let start = (row * size + it) * inner;
            start..start + inner
        })
    });
    pick(data, &shape, at)
}

/// Each index replaces one coordinate of its own position.
pub(super) fn gather_elements(call: &Call) -> Outputs {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(0, data.shape.len())?;
    let at = element_positions(call, data, indices, axis)?;
    Ok(vec![pick(data, &indices.shape, at.into_iter())?])
}

/// For `GatherElements` and `ScatterElements`: where in `data` each index points.
pub(super) fn element_positions(
    call: &Call,
    data: &Tensor,
    indices: &Tensor,
    axis: usize,
) -> Result<Vec<usize>, EvalError> {
    let fits = data.shape.len() == indices.shape.len()
        && (0..data.shape.len()).all(|it| it == axis || indices.shape[it] <= data.shape[it]);
    if !fits {
        return Err(call.shape_error("indices reach beyond the data"));
    }
    let mut strides = index::strides(&data.shape);
    let step = std::mem::take(&mut strides[axis]) as usize;
    let places = positions(indices, data.shape[axis])?;
    let walk = Walk::new(&indices.shape, strides, 0);
    Ok(walk.zip(places).map(|(at, place)| at + place * step).collect())
}

/// Tuples of indices name entries of the leading axes, after some axes in common.
pub(super) fn gather_nd(call: &Call) -> Outputs {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let batch = call.int("batch_dims", 0)?;
    let batch = usize::try_from(batch).map_err(|_| call.shape_error("batch_dims"))?;
    let (starts, block) = tuple_positions(call, data, indices, batch)?;
    let width = indices.shape[indices.shape.len() - 1];
    let tuples = &indices.shape[..indices.shape.len() - 1];
    let shape = [tuples, &data.shape[batch + width..]].concat();
    elements(&shape)?;
    let at = starts.iter().flat_map(|it| *it..*it + block);
    Ok(vec![pick(data, &shape, at)?])
}

/// For `GatherND` and `ScatterND`: where in `data` each tuple points, and how many elements
/// follow.
pub(super) fn tuple_positions(
    call: &Call,
    data: &Tensor,
    indices: &Tensor,
    batch: usize,
) -> Result<(Vec<usize>, usize), EvalError> {
    let Some((&width, tuples)) = indices.shape.split_last() else {
        return Err(call.shape_error("indices are a scalar"));
    };
    let fits = batch <= tuples.len()
        && batch + width <= data.shape.len()
        && data.shape[..batch] == tuples[..batch];
    if !fits {
        return Err(call.shape_error("indices have more axes than the data"));
    }
    let strides = index::strides(&data.shape);
    let step = |axis: usize| strides[axis] as usize;
    let count: usize = tuples.iter().product();
    let per_batch: usize = tuples[batch..].iter().product();
    let numbers = values::ints(indices)?;
    let mut starts = Vec::with_capacity(count);
    for tuple in 0..count {
        let mut at = if batch > 0 { tuple / per_batch * step(batch - 1) } else { 0 };
        for (i, it) in numbers[tuple * width..(tuple + 1) * width].iter().enumerate() {
            at += position(*it, data.shape[batch + i])? * step(batch + i);
        }
        starts.push(at);
    }
    Ok((starts, data.shape[batch + width..].iter().product()))
}

/// Indices into a dimension, counted from its end if negative.
pub(super) fn positions(indices: &Tensor, size: usize) -> Result<Vec<usize>, EvalError> {
    values::ints(indices)?.into_iter().map(|it| position(it, size)).collect()
}

/// `(start, length)` of a slice of a dimension, as Python counts; `None` for a step of 0.
fn extent(start: i64, end: i64, step: i64, size: i64) -> Option<(usize, usize)> {
    let from_start = |it: i64| if it < 0 { it.saturating_add(size) } else { it };
    let (start, end) = (from_start(start), from_start(end));
    let (start, end, span) = match step {
        0 => return None,
        _ if size == 0 => return Some((0, 0)),
        1.. => {
            (start.clamp(0, size), end.clamp(0, size), end.clamp(0, size) - start.clamp(0, size))
        }
        _ => (start.clamp(0, size - 1), end.clamp(-1, size - 1), 0),
    };
    let span = if step > 0 { span } else { start - end };
    let len = span.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
    // Where nothing is taken the start may lie behind the end.
    Some((if len == 0 { 0 } else { start as usize }, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{eval::testing::*, ir::Attrs};

    /// From Python: `list(range(5))[start:end:step]`.
    #[test]
    fn slices_count_as_python_does() {
        let x = i64s(&[5], &[0, 1, 2, 3, 4]);
        for (start, end, step, expected) in [
            (1, 4, 2, vec![1, 3]),
            (-2, i64::MAX, 1, vec![3, 4]),
            (i64::MAX, i64::MIN, -2, vec![4, 2, 0]),
            (3, 1, 1, vec![]),
            (2, -9, -1, vec![2, 1, 0]),
            (0, 5, i64::MAX, vec![0]),
        ] {
            let args = [start, end, 0, step].map(|it| i64s(&[1], &[it]));
            let [a, b, c, d] = &args;
            let result = eval("Slice", &[&x, a, b, c, d], Attrs::default()).unwrap();
            assert_eq!(result.to_i64().unwrap(), expected, "{start}:{end}:{step}");
        }
        let old = Attrs::default().with("starts", vec![1i64]).with("ends", vec![3i64]);
        let result = eval_at(9, "Slice", &[Some(x)], old, 1).unwrap();
        assert_eq!(result[0].to_i64().unwrap(), [1, 2]);
    }

    proptest! {
        #[test]
        fn slices_stay_inside(start: i64, end: i64, step: i64, size in 0i64..6) {
            let inside = |start: usize, len: usize| len == 0 || (start as i64) < size;
            let near = |it: i64| it % 8;
            for (start, end, step) in [(start, end, step), (near(start), near(end), near(step))] {
                match extent(start, end, step, size) {
                    None => prop_assert_eq!(step, 0),
                    Some((at, len)) => {
                        prop_assert!(inside(at, len) && len as i64 <= size);
                        let last = at as i128 + step as i128 * (len as i128 - 1).max(0);
                        prop_assert!(len == 0 || (0..size as i128).contains(&last));
                    }
                }
            }
        }
    }

    #[test]
    fn gather_counts_from_the_end_and_checks_bounds() {
        let x = f32s(&[3, 2], &[1., 2., 3., 4., 5., 6.]);
        let result = eval("Gather", &[&x, &i64s(&[2], &[-1, 0])], Attrs::default()).unwrap();
        close(&result, &[5., 6., 1., 2.]);
        let result = eval("Gather", &[&x, &i64s(&[], &[3])], Attrs::default());
        assert!(matches!(result, Err(EvalError::Index { index: 3, size: 3 })));
    }

    /// Example 5 of the GatherND specification: one axis in common.
    #[test]
    fn gather_nd_shares_leading_axes() {
        let data = i64s(&[2, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7]);
        let indices = i64s(&[2, 1], &[1, 0]);
        let attrs = Attrs::default().with("batch_dims", 1i64);
        let result = eval("GatherND", &[&data, &indices], attrs).unwrap();
        assert_eq!(
            (result.shape.clone(), result.to_i64().unwrap()),
            (vec![2, 2], vec![2, 3, 4, 5])
        );
    }
}
