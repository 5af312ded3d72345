//! Operators on broadcast pairs: arithmetic, comparison, logic, choice.

use std::cmp::Ordering;

use super::{
    EvalError,
    call::Call,
    index::{broadcast, broadcast_to, pick_from, same_dtype},
    math,
    table::Outputs,
    values::{self, Values, bool_tensor, int_tensor, real_tensor},
};
use crate::tensor::Tensor;

type RealFn = fn(f64, f64) -> f64;
/// `None` where the result does not exist.
type IntFn = fn(i128, i128) -> Option<i128>;

/// An arithmetic operator of two inputs.
pub(super) fn arithmetic(call: &Call, real: RealFn, int: IntFn) -> Outputs {
    let (a, b) = operands(call)?;
    Ok(vec![combine(a, b, real, int)?])
}

/// An arithmetic operator of any number of inputs, from left to right.
pub(super) fn variadic(call: &Call, real: RealFn, int: IntFn) -> Outputs {
    let inputs = call.inputs_from(0)?;
    let mut result = call.input(0)?.clone();
    for input in &inputs[1..] {
        result = combine(&result, input, real, int)?;
    }
    Ok(vec![result])
}

pub(super) fn mean(call: &Call) -> Outputs {
    let sum = variadic(call, |a, b| a + b, |_, _| None)?.remove(0);
    let count = call.inputs.len() as f64;
    let values = values::reals(&sum)?.into_iter().map(|it| it / count);
    Ok(vec![real_tensor(sum.dtype, &sum.shape, values)?])
}

/// Integers divide like Python's or, with `fmod`, like C's.
pub(super) fn modulo(call: &Call) -> Outputs {
    if call.flag("fmod", false)? {
        return arithmetic(call, |a, b| a % b, i128::checked_rem);
    }
    let floor = |a: i128, b: i128| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    };
    let real = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    arithmetic(call, real, floor)
}

/// The exponent may have another type than the base, whose type the result takes.
pub(super) fn power(call: &Call) -> Outputs {
    let (base, exponent) = operands(call)?;
    let shape = broadcast(&base.shape, &exponent.shape)?;
    let (a, b) = (Values::of(base)?, values::numbers(exponent)?);
    let (from, to) = (&base.shape[..], &exponent.shape[..]);
    Ok(vec![match a {
        Values::Real(a) => {
            let values = zip((&a, from), (&b, to), &shape, |a, b| a.powf(*b))?;
            real_tensor(base.dtype, &shape, values)?
        }
        Values::Int(a) => {
            let values = zip((&a, from), (&b, to), &shape, |a, b| int_power(*a, *b))?;
            int_tensor(base.dtype, &shape, values)?
        }
        _ => return Err(EvalError::Type { expected: "numbers", got: base.dtype }),
    }])
}

pub(super) fn shift(call: &Call) -> Outputs {
    let steps = |it: i128| u32::try_from(it).unwrap_or(u32::MAX);
    match call.text("direction", "")? {
        "LEFT" => bitwise(call, |a, b| a.checked_shl(steps(b)).unwrap_or(0)),
        "RIGHT" => bitwise(call, |a, b| a >> steps(b).min(127)),
        other => Err(call.unsupported(&format!("with direction {other}"))),
    }
}

/// A comparison, given how the operands are ordered; NaN has no order.
pub(super) fn compare(call: &Call, accept: fn(Option<Ordering>) -> bool) -> Outputs {
    let (a, b) = operands(call)?;
    let (from, to) = (&a.shape[..], &b.shape[..]);
    let shape = broadcast(from, to)?;
    let accepted = match (Values::of(a)?, Values::of(b)?) {
        (Values::Bool(x), Values::Bool(y)) => {
            zip((&x, from), (&y, to), &shape, |x, y| accept(Some(x.cmp(y))))
        }
        (Values::Int(x), Values::Int(y)) => {
            zip((&x, from), (&y, to), &shape, |x, y| accept(Some(x.cmp(y))))
        }
        (Values::Real(x), Values::Real(y)) => {
            zip((&x, from), (&y, to), &shape, |x, y| accept(x.partial_cmp(y)))
        }
        (Values::Text(x), Values::Text(y)) => {
            zip((&x, from), (&y, to), &shape, |x, y| accept(Some(x.cmp(y))))
        }
        _ => return Err(EvalError::Type { expected: "one element type", got: b.dtype }),
    };
    Ok(vec![bool_tensor(&shape, accepted?)])
}

pub(super) fn logic(call: &Call, f: fn(bool, bool) -> bool) -> Outputs {
    let (a, b) = operands(call)?;
    let shape = broadcast(&a.shape, &b.shape)?;
    let (x, y) = (values::bools(a)?, values::bools(b)?);
    let values = zip((&x, &a.shape), (&y, &b.shape), &shape, |x, y| f(*x, *y))?;
    Ok(vec![bool_tensor(&shape, values)])
}

pub(super) fn select(call: &Call) -> Outputs {
    let (condition, yes, no) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let shape = broadcast(&condition.shape, &broadcast(&yes.shape, &no.shape)?)?;
    let conditions = values::bools(condition)?;
    let places = broadcast_to(&yes.shape, &shape)?.zip(broadcast_to(&no.shape, &shape)?);
    let at = broadcast_to(&condition.shape, &shape)?
        .zip(places)
        .map(|(it, (yes, no))| if conditions[it] { (0, yes) } else { (1, no) });
    Ok(vec![pick_from(&[yes, no], &shape, at)?])
}

/// Limits were attributes before version 11.
pub(super) fn clip(call: &Call) -> Outputs {
    let input = call.input(0)?;
    if call.opset < 11 {
        let low = call.float("min", f32::MIN)?;
        let high = call.float("max", f32::MAX)?;
        let values = call.reals(0)?.into_iter().map(|it| math::min(math::max(it, low), high));
        return Ok(vec![real_tensor(input.dtype, &input.shape, values)?]);
    }
    let mut result = input.clone();
    if let Some(low) = call.optional(1) {
        result = combine(&result, low, math::max, |a, b| Some(a.max(b)))?;
    }
    if let Some(high) = call.optional(2) {
        result = combine(&result, high, math::min, |a, b| Some(a.min(b)))?;
    }
    if result.shape == input.shape { Ok(vec![result]) } else { Err(call.shape_error("limits")) }
}

/// Negative numbers are multiplied with a slope that broadcasts to them.
pub(super) fn prelu(call: &Call) -> Outputs {
    let (input, slope) = (call.input(0)?, call.input(1)?);
    let real = |a: f64, slope: f64| if a < 0.0 { a * slope } else { a };
    let result = combine(input, slope, real, |a, slope| Some(if a < 0 { a * slope } else { a }))?;
    if result.shape == input.shape { Ok(vec![result]) } else { Err(call.shape_error("slope")) }
}

/// The bits of an integer type are those of its `i128`.
pub(super) fn bitwise(call: &Call, f: impl Fn(i128, i128) -> i128) -> Outputs {
    let (a, b) = operands(call)?;
    let dtype = same_dtype(&[a, b])?;
    let shape = broadcast(&a.shape, &b.shape)?;
    match (Values::of(a)?, Values::of(b)?) {
        (Values::Int(x), Values::Int(y)) => {
            let values = zip((&x, &a.shape), (&y, &b.shape), &shape, |x, y| f(*x, *y))?;
            Ok(vec![int_tensor(dtype, &shape, values)?])
        }
        _ => Err(EvalError::Type { expected: "integers", got: dtype }),
    }
}

/// Two tensors of one numeric type, broadcast.
pub(super) fn combine(
    a: &Tensor,
    b: &Tensor,
    real: RealFn,
    int: IntFn,
) -> Result<Tensor, EvalError> {
    let dtype = same_dtype(&[a, b])?;
    let shape = broadcast(&a.shape, &b.shape)?;
    match (Values::of(a)?, Values::of(b)?) {
        (Values::Real(x), Values::Real(y)) => {
            let values = zip((&x, &a.shape), (&y, &b.shape), &shape, |x, y| real(*x, *y))?;
            real_tensor(dtype, &shape, values)
        }
        (Values::Int(x), Values::Int(y)) => {
            let values = zip((&x, &a.shape), (&y, &b.shape), &shape, |x, y| int(*x, *y))?;
            let values: Option<Vec<i128>> = values.into_iter().collect();
            int_tensor(dtype, &shape, values.ok_or(EvalError::DivideByZero)?)
        }
        _ => Err(EvalError::Type { expected: "numbers", got: dtype }),
    }
}

fn operands<'a>(call: &Call<'a>) -> Result<(&'a Tensor, &'a Tensor), EvalError> {
    // Before version 7 a node said itself whether and where to broadcast.
    if call.opset < 7 && call.op.domain.is_empty() && call.flag("broadcast", false)? {
        return Err(call.unsupported("of a version before 7 with broadcast"));
    }
    Ok((call.input(0)?, call.input(1)?))
}

fn zip<A, B, C>(
    (a, from): (&[A], &[usize]),
    (b, to): (&[B], &[usize]),
    shape: &[usize],
    f: impl Fn(&A, &B) -> C,
) -> Result<Vec<C>, EvalError> {
    if from == to {
        return Ok(a.iter().zip(b).map(|(a, b)| f(a, b)).collect());
    }
    let places = broadcast_to(from, shape)?.zip(broadcast_to(to, shape)?);
    Ok(places.map(|(i, j)| f(&a[i], &b[j])).collect())
}

fn int_power(base: i128, exponent: f64) -> i128 {
    if exponent >= 0.0 && exponent.fract() == 0.0 && exponent <= f64::from(u32::MAX) {
        return base.wrapping_pow(exponent as u32);
    }
    (base as f64).powf(exponent) as i128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::testing::*, ir::Attrs, tensor::DType};

    #[test]
    fn integers_divide_towards_zero_and_never_by_it() {
        let (a, b) = (i64s(&[4], &[7, -7, 7, -7]), i64s(&[4], &[2, 2, -2, -2]));
        let none = Attrs::default;
        assert_eq!(eval("Div", &[&a, &b], none()).unwrap().to_i64().unwrap(), [3, -3, -3, 3]);
        // numpy.mod and numpy.fmod.
        assert_eq!(eval("Mod", &[&a, &b], none()).unwrap().to_i64().unwrap(), [1, 1, -1, -1]);
        let fmod = none().with("fmod", 1i64);
        assert_eq!(eval("Mod", &[&a, &b], fmod).unwrap().to_i64().unwrap(), [1, -1, 1, -1]);
        let zero = i64s(&[1], &[0]);
        for op in ["Div", "Mod"] {
            let result = eval(op, &[&a, &zero], none());
            assert!(matches!(result, Err(EvalError::DivideByZero)));
        }
    }

    #[test]
    fn pairs_broadcast_or_are_refused() {
        let (a, b) = (f32s(&[2, 1], &[1., 2.]), f32s(&[3], &[10., 20., 30.]));
        let sum = eval("Add", &[&a, &b], Attrs::default()).unwrap();
        assert_eq!(sum.shape, [2, 3]);
        close(&sum, &[11., 21., 31., 12., 22., 32.]);
        let other = f32s(&[2], &[1., 2.]);
        assert!(eval("Add", &[&b, &other], Attrs::default()).is_err());
        assert!(eval("Add", &[&b, &i64s(&[1], &[1])], Attrs::default()).is_err());
    }

    #[test]
    fn nan_compares_false_and_survives_max() {
        let (a, b) = (f32s(&[2], &[f32::NAN, 1.]), f32s(&[2], &[1., f32::NAN]));
        for op in ["Less", "Equal", "GreaterOrEqual"] {
            let result = eval(op, &[&a, &b], Attrs::default()).unwrap();
            assert_eq!(result.to_i64().unwrap(), [0, 0], "{op}");
        }
        let result = eval("Max", &[&a, &b], Attrs::default()).unwrap();
        assert!(result.to_f32().unwrap().iter().all(|it| it.is_nan()));
    }

    #[test]
    fn wrapping_is_that_of_the_type() {
        let (a, b) = (raw(DType::I8, &[1], &[127]), raw(DType::I8, &[1], &[1]));
        let sum = eval("Add", &[&a, &b], Attrs::default()).unwrap();
        assert_eq!(sum.to_i64().unwrap(), [-128]);
    }
}
