//! Tensors from few numbers: constants, ranges, one-hot rows, positions.

use std::iter::{repeat_n, zip};

use super::{
    EvalError, LIMIT,
    call::{Call, wrong},
    index::{self, elements, pick, pick_from},
    scope::dense,
    table::Outputs,
    values::{self, Values, int_tensor, only, real_tensor},
};
use crate::{
    ir::Attr,
    tensor::{DType, Tensor},
};

pub(super) fn constant(call: &Call) -> Outputs {
    let Some((name, value)) = call.attrs.iter().next() else {
        return Err(wrong("value", "is missing"));
    };
    Ok(vec![match value {
        Attr::Tensor(it) => it.clone(),
        Attr::Sparse(it) => dense(it)?,
        Attr::Float(it) => Tensor::scalar(*it),
        Attr::Floats(it) => Tensor::from_f32(&[it.len()], it.iter().copied()),
        Attr::Int(it) => Tensor::from_i64(&[], [*it]),
        Attr::Ints(it) => Tensor::from_i64(&[it.len()], it.iter().copied()),
        Attr::String(it) => Tensor::strings(vec![], vec![it.clone()]),
        Attr::Strings(it) => Tensor::strings(vec![it.len()], it.clone()),
        _ => return Err(wrong(name, "is not a tensor")),
    }])
}

pub(super) fn constant_of_shape(call: &Call) -> Outputs {
    let shape = index::shape(&values::ints(call.input(0)?)?)?;
    let value = match call.attrs.get("value") {
        None => Tensor::scalar(0.0),
        Some(Attr::Tensor(it)) if it.shape.iter().all(|it| *it == 1) => it.clone(),
        Some(_) => return Err(wrong("value", "is not one number")),
    };
    Ok(vec![pick(&value, &shape, repeat_n(0, elements(&shape)?))?])
}

pub(super) fn eye_like(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let [_, columns] = input.shape[..] else { return Err(call.shape_error("not a matrix")) };
    let shift = call.int("k", 0)?;
    let one = |it: usize| (it % columns) as i64 == ((it / columns) as i64).saturating_add(shift);
    let ones = (0..input.numel()).map(one);
    let dtype = call.dtype("dtype")?.unwrap_or(input.dtype);
    Ok(vec![match dtype {
        DType::Bool => values::bool_tensor(&input.shape, ones),
        it if it.is_float() => {
            real_tensor(it, &input.shape, ones.map(|it| f64::from(u8::from(it))))?
        }
        it => int_tensor(it, &input.shape, ones.map(i128::from))?,
    }])
}

/// `[axes, count]` positions of what is not zero.
pub(super) fn non_zero(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let set: Vec<usize> = match Values::of(input)? {
        Values::Bool(it) => places(&it, |it| *it),
        Values::Int(it) => places(&it, |it| *it != 0),
        Values::Real(it) => places(&it, |it| *it != 0.0),
        Values::Text(it) => places(&it, |it| !it.is_empty()),
    };
    let shape = [input.shape.len(), set.len()];
    let strides = index::strides(&input.shape);
    let coordinates = zip(strides, &input.shape)
        .flat_map(|(step, size)| set.iter().map(move |it| (it / step as usize % size) as i64));
    Ok(vec![Tensor::from_i64(&shape, coordinates)])
}

/// Indices outside the depth give rows without a one.
pub(super) fn one_hot(call: &Call) -> Outputs {
    let (indices, depth, choice) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let depth = only(depth, values::numbers(depth)?)? as i64;
    let axis = index::position(call.int("axis", -1)?, indices.shape.len() + 1)?;
    if choice.shape != [2] {
        return Err(call.shape_error("values are not a pair"));
    }
    let mut shape = indices.shape.clone();
    shape.insert(axis, index::shape(&[depth])?[0]);
    elements(&shape)?;
    let hot: Vec<i64> = values::numbers(indices)?
        .into_iter()
        .map(|it| it as i64)
        .map(|it| if it < 0 { it.saturating_add(depth) } else { it })
        .collect();
    let (outer, size, inner) = index::around(&shape, axis);
    let hot = &hot;
    let at = (0..outer).flat_map(|row| {
        (0..size).flat_map(move |it| {
            (0..inner).map(move |column| usize::from(hot[row * inner + column] == it as i64))
        })
    });
    Ok(vec![pick(choice, &shape, at)?])
}

pub(super) fn range(call: &Call) -> Outputs {
    let (start, limit, delta) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let dtype = index::same_dtype(&[start, limit, delta])?;
    if dtype.is_float() {
        let [start, limit, delta] = [start, limit, delta].map(|it| only(it, values::reals(it)?));
        let (start, limit, delta) = (start?, limit?, delta?);
        let count = ((limit - start) / delta).ceil().max(0.0);
        if count.is_nan() || delta == 0.0 {
            return Err(call.shape_error("the step leads nowhere"));
        }
        let count = limited(count)?;
        let values = (0..count).map(|it| start + it as f64 * delta);
        return Ok(vec![real_tensor(dtype, &[count], values)?]);
    }
    let [start, limit, delta] = [start, limit, delta].map(|it| only(it, values::ints(it)?));
    let (start, limit, delta) = (i128::from(start?), i128::from(limit?), i128::from(delta?));
    let span = if delta < 0 { start - limit } else { limit - start };
    let steps = delta.unsigned_abs();
    if steps == 0 {
        return Err(EvalError::DivideByZero);
    }
    let count = limited(span.max(0).unsigned_abs().div_ceil(steps) as f64)?;
    Ok(vec![int_tensor(dtype, &[count], (0..count).map(|it| start + it as i128 * delta))?])
}

/// `Where` along an axis: the entries whose condition holds.
pub(super) fn compress(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let kept = places(&values::bools(call.input(1)?)?, |it| *it);
    let (shape, axis) = match call.attrs.get("axis") {
        None => (vec![input.numel()], 0),
        Some(_) => (input.shape.clone(), call.axis(0, input.shape.len())?),
    };
    let (outer, size, inner) = index::around(&shape, axis);
    let mut result = shape.clone();
    result[axis] = kept.len();
    let at = (0..outer).flat_map(|row| {
        kept.iter().flat_map(move |it| {
            // Out of bounds whichever the row, so that `pick_from` refuses it.
            let row = if *it < size { row } else { outer };
            let start = (row * size + it) * inner;
            (start..start + inner).map(|it| (0, it))
        })
    });
    Ok(vec![pick_from(&[input], &result, at)?])
}

fn places<T>(values: &[T], accept: impl Fn(&T) -> bool) -> Vec<usize> {
    (0..values.len()).filter(|it| accept(&values[*it])).collect()
}

fn limited(count: f64) -> Result<usize, EvalError> {
    let size = count as usize;
    if size <= LIMIT { Ok(size) } else { Err(EvalError::TooLarge { shape: vec![size] }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn ranges_run_in_both_directions() {
        for (start, limit, delta, expected) in
            [(0, 5, 2, vec![0, 2, 4]), (3, 0, -1, vec![3, 2, 1]), (1, 0, 1, vec![])]
        {
            let args = [start, limit, delta].map(|it| i64s(&[], &[it]));
            let result = eval("Range", &args.each_ref(), Attrs::default()).unwrap();
            assert_eq!(result.to_i64().unwrap(), expected);
        }
        let args = [1.0, 2.0, 0.25].map(Tensor::scalar);
        let result = eval("Range", &args.each_ref(), Attrs::default()).unwrap();
        close(&result, &[1.0, 1.25, 1.5, 1.75]);
        let args = [0, 1, 0].map(|it| i64s(&[], &[it]));
        assert!(eval("Range", &args.each_ref(), Attrs::default()).is_err());
    }

    #[test]
    fn one_hot_puts_its_axis_where_it_is_told() {
        let (indices, depth) = (i64s(&[2], &[1, -1]), i64s(&[], &[3]));
        let values = f32s(&[2], &[0., 9.]);
        let inputs = [&indices, &depth, &values];
        let rows = eval("OneHot", &inputs, Attrs::default()).unwrap();
        close(&rows, &[0., 9., 0., 0., 0., 9.]);
        let first = Attrs::default().with("axis", 0i64);
        let columns = eval("OneHot", &inputs, first).unwrap();
        assert_eq!(columns.shape, [3, 2]);
        close(&columns, &[0., 0., 9., 0., 0., 9.]);
    }

    #[test]
    fn non_zero_lists_coordinates_by_axis() {
        let x = f32s(&[2, 2], &[1., 0., 2., 3.]);
        let result = eval("NonZero", &[&x], Attrs::default()).unwrap();
        assert_eq!(
            (result.shape.clone(), result.to_i64().unwrap()),
            (vec![2, 3], vec![0, 1, 1, 0, 0, 1])
        );
    }

    #[test]
    fn constants_of_a_shape_have_the_type_of_their_value() {
        let shape = i64s(&[2], &[2, 2]);
        let value = Attrs::default().with("value", i64s(&[1], &[7]));
        let result = eval("ConstantOfShape", &[&shape], value).unwrap();
        assert_eq!(result.to_i64().unwrap(), [7; 4]);
        let result = eval("ConstantOfShape", &[&shape], Attrs::default()).unwrap();
        assert_eq!(result.dtype, DType::F32);
    }
}
