//! Operators that keep the elements and change how they are arranged.

use super::{
    EvalError,
    call::Call,
    index::{self, Walk, around, axes, broadcast, broadcast_to, elements, pick, pick_from},
    table::Outputs,
    values::{self, bool_tensor, one_int},
};
use crate::tensor::Tensor;

pub(super) fn identity(call: &Call) -> Outputs {
    Ok(vec![call.input(0)?.clone()])
}

/// Inference only: the data and, if asked for, a mask of ones.
pub(super) fn dropout(call: &Call) -> Outputs {
    let input = call.input(0)?;
    if let Some(training) = call.optional(2)
        && values::one_bool(training)?
    {
        return Err(call.unsupported("in training mode"));
    }
    let mask = bool_tensor(&input.shape, std::iter::repeat_n(true, input.numel()));
    Ok(vec![input.clone(), mask])
}

/// The dimensions, or a range of them since version 15.
pub(super) fn shape(call: &Call) -> Outputs {
    let dims = &call.input(0)?.shape;
    let rank = dims.len() as i64;
    let bound = |it: i64| (if it < 0 { it.saturating_add(rank) } else { it }).clamp(0, rank);
    let start = bound(call.int("start", 0)?) as usize;
    let end = bound(call.int("end", rank)?).max(start as i64) as usize;
    let list = dims[start..end].iter().map(|it| *it as i64);
    Ok(vec![Tensor::from_i64(&[end - start], list)])
}

pub(super) fn size(call: &Call) -> Outputs {
    Ok(vec![Tensor::from_i64(&[], [call.input(0)?.numel() as i64])])
}

/// 0 copies a dimension unless `allowzero`; -1 is what remains.
pub(super) fn reshape(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let missing = || EvalError::MissingInput { name: "the shape of `Reshape`".into() };
    let mut dims = call.ints_or_input("shape", 1)?.ok_or_else(missing)?;
    if !call.flag("allowzero", false)? {
        for (axis, dim) in dims.iter_mut().enumerate().filter(|(_, it)| **it == 0) {
            let from = input.shape.get(axis);
            *dim = *from.ok_or_else(|| call.shape_error("0 beyond the rank"))? as i64;
        }
    }
    if let Some(free) = dims.iter().position(|it| *it == -1) {
        dims[free] = 1;
        let known = elements(&index::shape(&dims)?)?;
        dims[free] = input.numel().checked_div(known).unwrap_or(0) as i64;
    }
    reshaped(call, index::shape(&dims)?)
}

pub(super) fn flatten(call: &Call) -> Outputs {
    let shape = &call.input(0)?.shape;
    let axis = match call.int("axis", 1)? {
        // Unlike an axis of a value, this may lie behind the last.
        it @ 0.. => index::position(it, shape.len() + 1)?,
        it => index::axis(it, shape.len())?,
    };
    reshaped(call, vec![shape[..axis].iter().product(), shape[axis..].iter().product()])
}

/// Without axes: every dimension of one goes.
pub(super) fn squeeze(call: &Call) -> Outputs {
    let shape = &call.input(0)?.shape;
    let gone = match call.ints_or_input("axes", 1)? {
        Some(list) => axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|it| shape[*it] == 1).collect(),
    };
    let kept = (0..shape.len()).filter(|it| !gone.contains(it));
    reshaped(call, kept.map(|it| shape[it]).collect())
}

pub(super) fn unsqueeze(call: &Call) -> Outputs {
    let shape = &call.input(0)?.shape;
    let list = call.ints_or_input("axes", 1)?.unwrap_or_default();
    let rank = shape.len() + list.len();
    let new = axes(&list, rank)?;
    let mut old = shape.iter();
    let dim = |axis| if new.contains(&axis) { Some(1) } else { old.next().copied() };
    reshaped(call, (0..rank).filter_map(dim).collect())
}

pub(super) fn transpose(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let rank = input.shape.len();
    let order = match call.ints("perm")? {
        Some(list) if list.len() != rank => return Err(call.shape_error("`perm` differs in rank")),
        Some(list) => axes(list, rank)?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![permute(input, &order)?])
}

/// Axis `i` of the result is axis `order[i]` of `input`.
pub(super) fn permute(input: &Tensor, order: &[usize]) -> Result<Tensor, EvalError> {
    let strides = index::strides(&input.shape);
    let shape: Vec<usize> = order.iter().map(|it| input.shape[*it]).collect();
    let steps = order.iter().map(|it| strides[*it]).collect();
    pick(input, &shape, Walk::new(&shape, steps, 0))
}

pub(super) fn expand(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let to = index::shape(&values::ints(call.input(1)?)?)?;
    let shape = broadcast(&input.shape, &to)?;
    Ok(vec![pick(input, &shape, broadcast_to(&input.shape, &shape)?)?])
}

/// Each axis is seen as (repeat, dimension), of which the repeat moves nothing.
pub(super) fn tile(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let repeats = index::shape(&values::ints(call.input(1)?)?)?;
    if call.opset < 6 || repeats.len() != input.shape.len() {
        return Err(call.shape_error("repeats differ in rank"));
    }
    let pairs: Vec<usize> = repeats.iter().zip(&input.shape).flat_map(|(a, b)| [*a, *b]).collect();
    elements(&pairs)?;
    let steps = index::strides(&input.shape).into_iter().flat_map(|it| [0, it]).collect();
    let shape: Vec<usize> = pairs.chunks(2).map(|it| it[0] * it[1]).collect();
    Ok(vec![pick(input, &shape, Walk::new(&pairs, steps, 0))?])
}

pub(super) fn concat(call: &Call) -> Outputs {
    let inputs = call.inputs_from(0)?;
    let axis = call.axis(1, call.input(0)?.shape.len())?;
    Ok(vec![join(&inputs, axis)?])
}

/// Tensors side by side along an axis.
pub(super) fn join(parts: &[&Tensor], axis: usize) -> Result<Tensor, EvalError> {
    let mut shape = parts[0].shape.clone();
    shape[axis] = 0;
    for part in parts {
        let fits = part.shape.len() == shape.len()
            && (0..shape.len()).all(|it| it == axis || part.shape[it] == shape[it]);
        if !fits {
            let what = format!("{part:?} does not continue {:?} along axis {axis}", parts[0]);
            return Err(EvalError::Shape { what });
        }
        shape[axis] += part.shape[axis];
    }
    elements(&shape)?;
    let (outer, _, inner) = around(&shape, axis);
    let widths: Vec<usize> = parts.iter().map(|it| it.shape[axis] * inner).collect();
    let at = (0..outer).flat_map(|row| {
        let parts = widths.iter().enumerate();
        parts.flat_map(move |(part, width)| {
            (row * width..(row + 1) * width).map(move |it| (part, it))
        })
    });
    pick_from(parts, &shape, at)
}

/// Sizes are given, or follow from the number of parts, of which the last may be smaller.
pub(super) fn split(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let axis = call.axis(0, input.shape.len())?;
    let (outer, size, inner) = around(&input.shape, axis);
    let sizes = match call.ints_or_input("split", 1)? {
        Some(list) => index::shape(&list)?,
        None => even_sizes(call, size)?,
    };
    if sizes.iter().sum::<usize>() != size {
        return Err(call.shape_error("the parts are not the whole"));
    }
    let mut start = 0;
    let part = |width: usize| {
        let from = start;
        start += width;
        let rows = (0..outer).flat_map(|row| {
            let first = (row * size + from) * inner;
            first..first + width * inner
        });
        let mut shape = input.shape.clone();
        shape[axis] = width;
        pick(input, &shape, rows)
    };
    sizes.into_iter().map(part).collect()
}

fn even_sizes(call: &Call, size: usize) -> Result<Vec<usize>, EvalError> {
    let count = call.int("num_outputs", call.outputs as i64)?;
    let count = index::shape(&[count])?[0].min(call.outputs);
    if count == 0 {
        return Err(call.shape_error("no parts"));
    }
    let width = size.div_ceil(count);
    Ok((0..count).map(|it| width.min(size.saturating_sub(it * width))).collect())
}

/// The upper or lower triangle of each matrix; the rest is zero.
pub(super) fn triangle(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let [.., rows, columns] = input.shape[..] else {
        return Err(call.shape_error("not a matrix"));
    };
    let shift = call.optional(1).map_or(Ok(0), one_int)?;
    let upper = call.flag("upper", true)?;
    let at = (0..input.numel()).map(|it| {
        let (row, column) = (it / columns % rows, it % columns);
        let diagonal = (row as i64).saturating_add(shift);
        let kept = if upper { column as i64 >= diagonal } else { column as i64 <= diagonal };
        if kept { (0, it) } else { (1, 0) }
    });
    Ok(vec![pick_from(&[input, &index::zero(input.dtype)], &input.shape, at)?])
}

fn reshaped(call: &Call, shape: Vec<usize>) -> Outputs {
    let input = call.input(0)?;
    if elements(&shape)? != input.numel() {
        return Err(call.shape_error(&format!("{shape:?} has another number of elements")));
    }
    Ok(vec![input.reshaped(shape)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::testing::*, ir::Attrs, tensor::DType};

    #[test]
    fn reshape_copies_and_infers() {
        let x = f32s(&[2, 3], &[0.; 6]);
        for (dims, expected) in [
            (vec![0, -1], Some(vec![2, 3])),
            (vec![-1, 2], Some(vec![3, 2])),
            (vec![6, 1, 1], Some(vec![6, 1, 1])),
            (vec![4, -1], None),
            (vec![-1, -1], None),
            (vec![1, 1, 0], None),
        ] {
            let dims = i64s(&[dims.len()], &dims);
            let result = eval("Reshape", &[&x, &dims], Attrs::default());
            assert_eq!(result.ok().map(|it| it.shape), expected);
        }
        let empty = f32s(&[0, 3], &[]);
        let dims = i64s(&[2], &[3, 0]);
        let zero = Attrs::default().with("allowzero", 1i64);
        assert_eq!(eval("Reshape", &[&empty, &dims], zero).unwrap().shape, [3, 0]);
    }

    #[test]
    fn axes_are_an_attribute_or_an_input() {
        let x = f32s(&[1, 2, 1], &[1., 2.]);
        let old = Attrs::default().with("axes", vec![0i64]);
        let result = eval_at(11, "Squeeze", &[Some(x.clone())], old, 1).unwrap();
        assert_eq!(result[0].shape, [2, 1]);
        let new = eval("Squeeze", &[&x, &i64s(&[1], &[-1])], Attrs::default()).unwrap();
        assert_eq!(new.shape, [1, 2]);
        assert_eq!(eval("Squeeze", &[&x], Attrs::default()).unwrap().shape, [2]);
        let more = eval("Unsqueeze", &[&x, &i64s(&[2], &[0, -1])], Attrs::default()).unwrap();
        assert_eq!(more.shape, [1, 1, 2, 1, 1]);
        assert!(eval("Squeeze", &[&x, &i64s(&[1], &[1])], Attrs::default()).is_err());
    }

    #[test]
    fn elements_move_whatever_their_type() {
        let x = raw(DType::U4, &[2, 3], &[0x21, 0x43, 0x65]);
        let turned = eval("Transpose", &[&x], Attrs::default()).unwrap();
        assert_eq!(values::ints(&turned).unwrap(), [1, 4, 2, 5, 3, 6]);
        let tiled = eval("Tile", &[&x, &i64s(&[2], &[1, 2])], Attrs::default()).unwrap();
        assert_eq!(values::ints(&tiled).unwrap(), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]);
        let axis = Attrs::default().with("axis", -1i64);
        let joined = eval("Concat", &[&x, &x], axis).unwrap();
        assert_eq!(values::ints(&joined).unwrap(), values::ints(&tiled).unwrap());
    }

    #[test]
    fn the_last_part_of_a_split_may_be_smaller() {
        let x = f32s(&[5], &[1., 2., 3., 4., 5.]);
        let attrs = Attrs::default().with("num_outputs", 2i64);
        let parts = eval_at(18, "Split", &[Some(x.clone())], attrs, 2).unwrap();
        assert_eq!([&parts[0].shape, &parts[1].shape], [&[3], &[2]]);
        let attrs = Attrs::default().with("split", vec![1i64, 4]);
        let parts = eval_at(11, "Split", &[Some(x)], attrs, 2).unwrap();
        assert_eq!(parts[1].to_f32().unwrap(), [2., 3., 4., 5.]);
    }
}
