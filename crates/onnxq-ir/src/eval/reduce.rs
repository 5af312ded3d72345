//! `Reduce*`: one number for each group of elements.

use super::{
    EvalError,
    call::Call,
    index::{self, Walk, axes},
    math,
    table::Outputs,
    values::{Values, bool_tensor, int_tensor, real_tensor},
};
use crate::tensor::Tensor;

/// A reduction as a fold: what each element contributes, how two combine, what becomes of it.
pub(super) struct Fold<T> {
    pub start: T,
    pub map: fn(T) -> T,
    pub join: fn(T, T) -> T,
    /// Gets the result and the number of elements.
    pub end: fn(T, usize) -> T,
}

impl<T> Fold<T> {
    pub(super) fn new(start: T, map: fn(T) -> T, join: fn(T, T) -> T) -> Fold<T> {
        Fold { start, map, join, end: |it, _| it }
    }
}

pub(super) fn l1(call: &Call) -> Outputs {
    reduce(
        call,
        &Fold::new(0.0, f64::abs, |a, b| a + b),
        &Fold::new(0, i128::wrapping_abs, i128::wrapping_add),
    )
}

pub(super) fn l2(call: &Call) -> Outputs {
    let real = Fold { end: |it: f64, _| it.sqrt(), ..Fold::new(0.0, |it| it * it, |a, b| a + b) };
    let int = Fold {
        end: |it: i128, _| (it as f64).sqrt() as i128,
        ..Fold::new(0, |it: i128| it.wrapping_mul(it), i128::wrapping_add)
    };
    reduce(call, &real, &int)
}

pub(super) fn log_sum(call: &Call) -> Outputs {
    let real = Fold { end: |it: f64, _| it.ln(), ..Fold::new(0.0, |it| it, |a, b| a + b) };
    let int = Fold {
        end: |it: i128, _| (it as f64).ln() as i128,
        ..Fold::new(0, |it| it, i128::wrapping_add)
    };
    reduce(call, &real, &int)
}

/// The logarithm is joined pair by pair, so that no exponential overflows.
pub(super) fn log_sum_exp(call: &Call) -> Outputs {
    let join = |a: f64, b: f64| {
        let most = math::max(a, b);
        if most.is_finite() { most + (-(a - b).abs()).exp().ln_1p() } else { most }
    };
    let int = Fold::new(0, |it| it, |_, _| 0);
    if !call.input(0)?.dtype.is_float() {
        return Err(call.unsupported("of integers"));
    }
    reduce(call, &Fold::new(f64::NEG_INFINITY, |it| it, join), &int)
}

pub(super) fn max(call: &Call) -> Outputs {
    reduce(
        call,
        &Fold::new(f64::NEG_INFINITY, |it| it, math::max),
        &Fold::new(i128::MIN, |it| it, i128::max),
    )
}

pub(super) fn mean(call: &Call) -> Outputs {
    let real = Fold { end: |it, count| it / count as f64, ..Fold::new(0.0, |it| it, |a, b| a + b) };
    let int = Fold {
        end: |it: i128, count| it.checked_div(count as i128).unwrap_or(0),
        ..Fold::new(0, |it| it, i128::wrapping_add)
    };
    reduce(call, &real, &int)
}

pub(super) fn min(call: &Call) -> Outputs {
    reduce(
        call,
        &Fold::new(f64::INFINITY, |it| it, math::min),
        &Fold::new(i128::MAX, |it| it, i128::min),
    )
}

pub(super) fn product(call: &Call) -> Outputs {
    reduce(call, &Fold::new(1.0, |it| it, |a, b| a * b), &Fold::new(1, |it| it, i128::wrapping_mul))
}

pub(super) fn sum(call: &Call) -> Outputs {
    reduce(call, &Fold::new(0.0, |it| it, |a, b| a + b), &Fold::new(0, |it| it, i128::wrapping_add))
}

pub(super) fn sum_square(call: &Call) -> Outputs {
    reduce(
        call,
        &Fold::new(0.0, |it| it * it, |a, b| a + b),
        &Fold::new(0, |it: i128| it.wrapping_mul(it), i128::wrapping_add),
    )
}

/// Axes were an attribute before version 18 (13 for `ReduceSum`); none means all of them.
fn reduce(call: &Call, real: &Fold<f64>, int: &Fold<i128>) -> Outputs {
    let input = call.input(0)?;
    let rank = input.shape.len();
    let list = call.ints_or_input("axes", 1)?.unwrap_or_default();
    let keeps_all = call.flag("noop_with_empty_axes", false)?;
    // Without axes each element is a group of its own, and its square or logarithm is still taken.
    let gone = match list.is_empty() {
        true if keeps_all => Vec::new(),
        true => (0..rank).collect(),
        false => axes(&list, rank)?,
    };
    let groups = Groups::of(&input.shape, &gone);
    let shape = if call.flag("keepdims", true)? { &groups.kept } else { &groups.squeezed };
    Ok(vec![match Values::of(input)? {
        Values::Real(it) => real_tensor(input.dtype, shape, groups.fold(&it, real))?,
        Values::Int(it) if groups.is_empty(&it) => {
            return Err(call.shape_error("nothing to reduce"));
        }
        Values::Int(it) => int_tensor(input.dtype, shape, groups.fold(&it, int))?,
        Values::Bool(it) => {
            bools(&it.iter().map(|it| (*it).into()).collect::<Vec<_>>(), &groups, shape, int)
        }
        Values::Text(_) => {
            return Err(EvalError::Type { expected: "numbers", got: input.dtype });
        }
    }])
}

fn bools(values: &[i128], groups: &Groups, shape: &[usize], fold: &Fold<i128>) -> Tensor {
    bool_tensor(shape, groups.fold(values, fold).into_iter().map(|it| it > 0))
}

/// Which elements of a tensor fall together when axes go.
struct Groups {
    from: Vec<usize>,
    kept: Vec<usize>,
    squeezed: Vec<usize>,
    gone: Vec<usize>,
}

impl Groups {
    fn of(from: &[usize], gone: &[usize]) -> Groups {
        let mut kept = from.to_vec();
        gone.iter().for_each(|it| kept[*it] = 1);
        let rest = (0..from.len()).filter(|it| !gone.contains(it));
        let squeezed = rest.map(|it| from[it]).collect();
        Groups { from: from.to_vec(), kept, squeezed, gone: gone.to_vec() }
    }

    fn is_empty(&self, values: &[i128]) -> bool {
        values.is_empty() && self.kept.iter().product::<usize>() > 0
    }

    fn fold<T: Copy>(&self, values: &[T], fold: &Fold<T>) -> Vec<T> {
        let mut strides = index::strides(&self.kept);
        self.gone.iter().for_each(|it| strides[*it] = 0);
        let mut results = vec![fold.start; self.kept.iter().product()];
        for (at, value) in Walk::new(&self.from, strides, 0).zip(values) {
            results[at] = (fold.join)(results[at], (fold.map)(*value));
        }
        let count = self.gone.iter().map(|it| self.from[*it]).product();
        results.into_iter().map(|it| (fold.end)(it, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn axes_come_from_the_attribute_or_the_input() {
        let x = f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let old = Attrs::default().with("axes", vec![1i64]).with("keepdims", 0i64);
        let result = eval_at(13, "ReduceMean", &[Some(x.clone())], old, 1).unwrap();
        assert_eq!(result[0].shape, [2]);
        close(&result[0], &[2., 5.]);
        let new = eval("ReduceMean", &[&x, &i64s(&[1], &[-2])], Attrs::default()).unwrap();
        assert_eq!(new.shape, [1, 3]);
        close(&new, &[2.5, 3.5, 4.5]);
        let noop = Attrs::default().with("noop_with_empty_axes", 1i64);
        let same = eval("ReduceSum", &[&x, &i64s(&[0], &[])], noop).unwrap();
        assert_eq!(same.shape, [2, 3]);
        close(&eval("ReduceSum", &[&x], Attrs::default()).unwrap(), &[21.]);
    }

    #[test]
    fn without_axes_each_element_is_reduced_by_itself() {
        let x = f32s(&[2, 2], &[2., -3., 0.5, 4.]);
        let noop = || Attrs::default().with("noop_with_empty_axes", 1i64);
        let results = [
            ("ReduceSumSquare", [4., 9., 0.25, 16.]),
            ("ReduceL1", [2., 3., 0.5, 4.]),
            ("ReduceL2", [2., 3., 0.5, 4.]),
            ("ReduceMean", [2., -3., 0.5, 4.]),
            ("ReduceLogSumExp", [2., -3., 0.5, 4.]),
        ];
        for (op, expected) in results {
            let result = eval(op, &[&x, &i64s(&[0], &[])], noop()).unwrap();
            assert_eq!(result.shape, [2, 2], "{op}");
            close(&result, &expected);
        }
    }

    #[test]
    fn a_flag_of_two_is_not_guessed() {
        let x = f32s(&[2], &[1., 2.]);
        for name in ["keepdims", "noop_with_empty_axes"] {
            let error = eval("ReduceSum", &[&x], Attrs::default().with(name, 2i64)).unwrap_err();
            assert!(error.to_string().contains(&format!("`{name}` of 2")), "{error}");
        }
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        let x = f32s(&[2], &[1000., 1000.]);
        close(&eval("ReduceLogSumExp", &[&x], Attrs::default()).unwrap(), &[1000.6931]);
    }

    #[test]
    fn an_empty_group_has_the_neutral_element() {
        let x = f32s(&[2, 0], &[]);
        let sum = eval("ReduceSum", &[&x, &i64s(&[1], &[1])], Attrs::default()).unwrap();
        close(&sum, &[0., 0.]);
        assert!(eval("ReduceMax", &[&i64s(&[0], &[])], Attrs::default()).is_err());
    }
}
