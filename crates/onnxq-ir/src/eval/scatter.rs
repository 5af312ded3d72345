//! Writing elements by position: `ScatterElements` and `ScatterND`.

use super::{
    EvalError,
    call::Call,
    gather::{element_positions, tuple_positions},
    index::{pick_from, same_dtype},
    math,
    table::Outputs,
    values::Values,
};
use crate::tensor::Tensor;

/// Each index replaces one coordinate of its own position.
pub(super) fn scatter_elements(call: &Call) -> Outputs {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.axis(0, data.shape.len())?;
    if indices.shape != updates.shape {
        return Err(call.shape_error("indices and updates differ"));
    }
    let places = element_positions(call, data, indices, axis)?;
    Ok(vec![write(call, data, updates, &places)?])
}

/// Each tuple of indices names a place for a block of updates.
pub(super) fn scatter_nd(call: &Call) -> Outputs {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (starts, block) = tuple_positions(call, data, indices, 0)?;
    if starts.len() * block != updates.numel() {
        return Err(call.shape_error("updates do not fit the indices"));
    }
    let places: Vec<usize> = starts.iter().flat_map(|it| *it..*it + block).collect();
    Ok(vec![write(call, data, updates, &places)?])
}

/// Update `i` goes to `places[i]`; where several go, they combine in order.
fn write(
    call: &Call,
    data: &Tensor,
    updates: &Tensor,
    places: &[usize],
) -> Result<Tensor, EvalError> {
    let dtype = same_dtype(&[data, updates])?;
    type Functions = (fn(f64, f64) -> f64, fn(i128, i128) -> i128);
    let (real, int): Functions = match call.text("reduction", "none")? {
        "none" => return replace(data, updates, places),
        "add" => (|a, b| a + b, i128::wrapping_add),
        "mul" => (|a, b| a * b, i128::wrapping_mul),
        "max" => (math::max, i128::max),
        "min" => (math::min, i128::min),
        other => return Err(call.unsupported(&format!("with reduction {other}"))),
    };
    let mut values = Values::of(data)?;
    match (&mut values, Values::of(updates)?) {
        (Values::Real(data), Values::Real(updates)) => {
            places.iter().zip(updates).for_each(|(at, it)| data[*at] = real(data[*at], it));
        }
        (Values::Int(data), Values::Int(updates)) => {
            places.iter().zip(updates).for_each(|(at, it)| data[*at] = int(data[*at], it));
        }
        _ => return Err(EvalError::Type { expected: "numbers", got: dtype }),
    }
    values.tensor(dtype, &data.shape)
}

fn replace(data: &Tensor, updates: &Tensor, places: &[usize]) -> Result<Tensor, EvalError> {
    let mut from: Vec<(usize, usize)> = (0..data.numel()).map(|it| (0, it)).collect();
    for (update, &at) in places.iter().enumerate() {
        from[at] = (1, update);
    }
    pick_from(&[data, updates], &data.shape, from.into_iter())
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn updates_replace_or_combine() {
        let data = f32s(&[4], &[1., 2., 3., 4.]);
        let (indices, updates) = (i64s(&[3, 1], &[1, 3, 1]), f32s(&[3], &[10., 20., 30.]));
        let inputs = [&data, &indices, &updates];
        close(&eval("ScatterND", &inputs, Attrs::default()).unwrap(), &[1., 30., 3., 20.]);
        let add = Attrs::default().with("reduction", "add");
        close(&eval("ScatterND", &inputs, add).unwrap(), &[1., 42., 3., 24.]);
        let far = i64s(&[3, 1], &[1, 4, 1]);
        assert!(eval("ScatterND", &[&data, &far, &updates], Attrs::default()).is_err());
    }

    #[test]
    fn elements_go_where_their_index_says() {
        let data = f32s(&[2, 2], &[0.; 4]);
        let (indices, updates) = (i64s(&[1, 2], &[1, -2]), f32s(&[1, 2], &[5., 6.]));
        let inputs = [&data, &indices, &updates];
        let result = eval("ScatterElements", &inputs, Attrs::default()).unwrap();
        close(&result, &[0., 6., 5., 0.]);
    }
}
