//! Operators on each element alone.

use super::{
    EvalError,
    binary::combine,
    call::Call,
    math::{gelu, gelu_tanh, sigmoid},
    table::Outputs,
    values::{self, Values, bool_tensor, int_tensor, real_tensor},
};

/// A function of floats.
pub(super) fn real(call: &Call, f: impl Fn(f64) -> f64) -> Outputs {
    let input = call.input(0)?;
    let values = call.reals(0)?.into_iter().map(f);
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

/// A function of floats or integers.
pub(super) fn number(call: &Call, real: fn(f64) -> f64, int: fn(i128) -> i128) -> Outputs {
    let input = call.input(0)?;
    let (dtype, shape) = (input.dtype, &input.shape);
    Ok(vec![match Values::of(input)? {
        Values::Real(it) => real_tensor(dtype, shape, it.into_iter().map(real))?,
        Values::Int(it) => int_tensor(dtype, shape, it.into_iter().map(int))?,
        _ => return Err(EvalError::Type { expected: "numbers", got: dtype }),
    }])
}

pub(super) fn not(call: &Call) -> Outputs {
    let input = call.input(0)?;
    Ok(vec![bool_tensor(&input.shape, values::bools(input)?.into_iter().map(|it| !it))])
}

pub(super) fn is_nan(call: &Call) -> Outputs {
    let input = call.input(0)?;
    Ok(vec![bool_tensor(&input.shape, call.reals(0)?.into_iter().map(f64::is_nan))])
}

/// Whether floats are infinite; the attributes may leave out a sign.
pub(super) fn is_infinite(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let negative = call.flag("detect_negative", true)?;
    let positive = call.flag("detect_positive", true)?;
    let accept = |it: &f64| it.is_infinite() && if *it < 0.0 { negative } else { positive };
    Ok(vec![bool_tensor(&input.shape, call.reals(0)?.iter().map(accept))])
}

pub(super) fn celu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.0)?;
    real(call, |it| it.max(0.0) + (alpha * (it / alpha).exp_m1()).min(0.0))
}

pub(super) fn elu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.0)?;
    real(call, |it| if it < 0.0 { alpha * it.exp_m1() } else { it })
}

pub(super) fn hard_sigmoid(call: &Call) -> Outputs {
    let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
    real(call, |it| (alpha * it + beta).clamp(0.0, 1.0))
}

pub(super) fn hard_swish(call: &Call) -> Outputs {
    real(call, |it| it * (it / 6.0 + 0.5).clamp(0.0, 1.0))
}

pub(super) fn leaky_relu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 0.01)?;
    real(call, |it| if it < 0.0 { alpha * it } else { it })
}

pub(super) fn selu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.673_263_2)?;
    let gamma = call.float("gamma", 1.050_701)?;
    real(call, |it| gamma * if it < 0.0 { alpha * it.exp_m1() } else { it })
}

pub(super) fn thresholded_relu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.0)?;
    real(call, |it| if it > alpha { it } else { 0.0 })
}

pub(super) fn approximate_gelu(call: &Call) -> Outputs {
    match call.text("approximate", "none")? {
        "none" => real(call, gelu),
        "tanh" => real(call, gelu_tanh),
        other => Err(call.unsupported(&format!("with approximation {other}"))),
    }
}

/// `com.microsoft.BiasGelu` and `FastGelu`: the second input is added before.
pub(super) fn biased(call: &Call, f: fn(f64) -> f64) -> Outputs {
    let mut input = call.input(0)?.clone();
    if let Some(bias) = call.optional(1) {
        input = combine(&input, bias, |a, b| a + b, |a, b| Some(a + b))?;
    }
    let values = values::reals(&input)?.into_iter().map(f);
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

pub(super) fn quick_gelu(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.702)?;
    real(call, |it| it * sigmoid(alpha * it))
}

pub(super) fn swish(call: &Call) -> Outputs {
    let alpha = call.float("alpha", 1.0)?;
    real(call, |it| it * sigmoid(alpha * it))
}

#[cfg(test)]
mod tests {
    use std::f32::consts::LN_2;

    use crate::{eval::testing::*, ir::Attrs, tensor::DType};

    /// Computed by ONNX Runtime 1.31.1 on `[-2, -0.5, 0, 0.5, 2]`.
    #[test]
    fn activations_match_onnx_runtime() {
        let x = f32s(&[5], &[-2., -0.5, 0., 0.5, 2.]);
        for (op, expected) in [
            ("Erf", [-0.9953223, -0.5204999, 0.0, 0.5204999, 0.9953223]),
            ("Sigmoid", [0.11920292, 0.37754068, 0.5, 0.62245935, 0.8807971]),
            ("HardSigmoid", [0.099999994, 0.4, 0.5, 0.6, 0.9]),
            ("Gelu", [-0.04550028, -0.15426877, 0.0, 0.34573123, 1.9544997]),
            ("Round", [-2.0, -0.0, 0.0, 0.0, 2.0]),
            ("Softplus", [0.126928, 0.474077, LN_2, 0.974077, 2.126928]),
        ] {
            close(&eval(op, &[&x], Attrs::default()).unwrap(), &expected);
        }
    }

    #[test]
    fn integers_keep_their_type() {
        let x = raw(DType::I8, &[3], &[0x80, 0, 5]);
        let relu = eval("Relu", &[&x], Attrs::default()).unwrap();
        assert_eq!((relu.dtype, relu.to_i64().unwrap()), (DType::I8, vec![0, 0, 5]));
        let sign = eval("Sign", &[&x], Attrs::default()).unwrap();
        assert_eq!(sign.to_i64().unwrap(), [-1, 0, 1]);
    }
}
