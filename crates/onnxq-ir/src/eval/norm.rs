//! Normalizations: `Softmax` and its logarithm, layer, RMS, batch and instance norms.

use super::{
    EvalError,
    binary::combine,
    call::Call,
    index::{around, broadcast_to},
    table::Outputs,
    values::{real_tensor, reals},
};
use crate::tensor::{DType, Tensor};

pub(super) fn softmax(call: &Call) -> Outputs {
    along_axis(call, |line| {
        let most = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line.iter_mut().for_each(|it| *it = (*it - most).exp());
        let sum: f64 = line.iter().sum();
        line.iter_mut().for_each(|it| *it /= sum);
    })
}

pub(super) fn log_softmax(call: &Call) -> Outputs {
    along_axis(call, |line| {
        let most = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = line.iter().map(|it| (it - most).exp()).sum();
        line.iter_mut().for_each(|it| *it -= most + sum.ln());
    })
}

/// Before version 13 everything from the axis on was one line.
fn along_axis(call: &Call, f: impl Fn(&mut [f64])) -> Outputs {
    let input = call.input(0)?;
    let rank = input.shape.len();
    let coerced = call.opset < 13;
    let axis = call.axis(if coerced { 1 } else { -1 }, rank)?;
    let (outer, size, inner) = match around(&input.shape, axis) {
        (outer, size, inner) if coerced => (outer, size * inner, 1),
        it => it,
    };
    let mut values = call.reals(0)?;
    let mut line = vec![0.0; size];
    for index in 0..outer * inner {
        let start = index / inner * size * inner + index % inner;
        (0..size).for_each(|it| line[it] = values[start + it * inner]);
        f(&mut line);
        (0..size).for_each(|it| values[start + it * inner] = line[it]);
    }
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

/// Outputs: the result, the means and the inverse deviations.
pub(super) fn layer_norm(call: &Call) -> Outputs {
    let norm = Norm { center: true, epsilon: call.float("epsilon", 1e-5)? };
    let input = call.input(0)?;
    let axis = call.axis(-1, input.shape.len())?;
    norm.apply(input, axis, Some(call.input(1)?), call.optional(2))
}

/// Outputs: the result and the inverse deviations.
pub(super) fn rms_norm(call: &Call) -> Outputs {
    let norm = Norm { center: false, epsilon: call.float("epsilon", 1e-5)? };
    let input = call.input(0)?;
    let axis = call.axis(-1, input.shape.len())?;
    let mut outputs = norm.apply(input, axis, Some(call.input(1)?), None)?;
    outputs.remove(1);
    Ok(outputs)
}

/// `com.microsoft.SkipLayerNormalization`: input, skip, gamma, beta, bias.
pub(super) fn skip_layer_norm(call: &Call) -> Outputs {
    let norm = Norm { center: true, epsilon: call.float("epsilon", 1e-12)? };
    skip(call, &norm, call.optional(3), call.optional(4))
}

/// `com.microsoft.SkipSimplifiedLayerNormalization`: input, skip, gamma, bias.
pub(super) fn skip_rms_norm(call: &Call) -> Outputs {
    let norm = Norm { center: false, epsilon: call.float("epsilon", 1e-12)? };
    skip(call, &norm, None, call.optional(3))
}

/// Outputs: the result, means, inverse deviations and the sum that was normalized.
fn skip(call: &Call, norm: &Norm, beta: Option<&Tensor>, bias: Option<&Tensor>) -> Outputs {
    let mut sum = add(call.input(0)?, call.input(1)?)?;
    if let Some(bias) = bias {
        sum = add(&sum, bias)?;
    }
    let Some(axis) = sum.shape.len().checked_sub(1) else {
        return Err(call.shape_error("a scalar"));
    };
    let mut outputs = norm.apply(&sum, axis, Some(call.input(2)?), beta)?;
    outputs.push(sum);
    Ok(outputs)
}

fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, EvalError> {
    combine(a, b, |a, b| a + b, |_, _| None)
}

struct Norm {
    /// Subtract the mean.
    center: bool,
    epsilon: f64,
}

impl Norm {
    fn apply(
        &self,
        input: &Tensor,
        axis: usize,
        scale: Option<&Tensor>,
        bias: Option<&Tensor>,
    ) -> Outputs {
        let mut values = reals(input)?;
        let size = input.shape[axis..].iter().product::<usize>();
        let mut means = Vec::new();
        let mut inverses = Vec::new();
        for line in values.chunks_exact_mut(size.max(1)) {
            let (mean, inverse) = self.line(line);
            means.push(mean);
            inverses.push(inverse);
        }
        if let Some(scale) = scale {
            each_with(&mut values, &input.shape, scale, |it, scale| *it *= scale)?;
        }
        if let Some(bias) = bias {
            each_with(&mut values, &input.shape, bias, |it, bias| *it += bias)?;
        }
        let mut lines = input.shape.clone();
        lines[axis..].fill(1);
        if size == 0 {
            means = vec![0.0; lines.iter().product()];
            inverses.clone_from(&means);
        }
        Ok(vec![
            real_tensor(input.dtype, &input.shape, values)?,
            real_tensor(DType::F32, &lines, means)?,
            real_tensor(DType::F32, &lines, inverses)?,
        ])
    }

    fn line(&self, line: &mut [f64]) -> (f64, f64) {
        let count = line.len() as f64;
        let mean = if self.center { line.iter().sum::<f64>() / count } else { 0.0 };
        line.iter_mut().for_each(|it| *it -= mean);
        let square = line.iter().map(|it| it * it).sum::<f64>() / count;
        let inverse = 1.0 / (square + self.epsilon).sqrt();
        line.iter_mut().for_each(|it| *it *= inverse);
        (mean, inverse)
    }
}

fn each_with(
    values: &mut [f64],
    shape: &[usize],
    other: &Tensor,
    f: impl Fn(&mut f64, f64),
) -> Result<(), EvalError> {
    let others = reals(other)?;
    let at = broadcast_to(&other.shape, shape)?;
    values.iter_mut().zip(at).for_each(|(it, at)| f(it, others[at]));
    Ok(())
}

/// Inference only: with the stored mean and variance of each channel.
pub(super) fn batch_norm(call: &Call) -> Outputs {
    if call.outputs > 1 || call.flag("training_mode", false)? {
        return Err(call.unsupported("in training mode"));
    }
    let input = call.input(0)?;
    let epsilon = call.float("epsilon", 1e-5)?;
    let [scale, bias, mean, variance] =
        [call.reals(1)?, call.reals(2)?, call.reals(3)?, call.reals(4)?];
    let channels = input.shape.get(1).copied().unwrap_or(1);
    if [&scale, &bias, &mean, &variance].iter().any(|it| it.len() != channels) {
        return Err(call.shape_error("parameters differ from the channels"));
    }
    let inner = input.shape.iter().skip(2).product::<usize>();
    let mut values = call.reals(0)?;
    for (line, values) in values.chunks_exact_mut(inner.max(1)).enumerate() {
        let channel = line % channels;
        let factor = scale[channel] / (variance[channel] + epsilon).sqrt();
        values.iter_mut().for_each(|it| *it = (*it - mean[channel]) * factor + bias[channel]);
    }
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

/// Each channel of each sample by itself.
pub(super) fn instance_norm(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let (scale, bias) = (call.reals(1)?, call.reals(2)?);
    let [_, channels, ref rest @ ..] = input.shape[..] else {
        return Err(call.shape_error("no channels"));
    };
    if scale.len() != channels || bias.len() != channels {
        return Err(call.shape_error("parameters differ from the channels"));
    }
    let norm = Norm { center: true, epsilon: call.float("epsilon", 1e-5)? };
    let size = rest.iter().product::<usize>().max(1);
    let mut values = call.reals(0)?;
    for (index, line) in values.chunks_exact_mut(size).enumerate() {
        norm.line(line);
        let (scale, bias) = (scale[index % channels], bias[index % channels]);
        line.iter_mut().for_each(|it| *it = *it * scale + bias);
    }
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

/// By the length of each line along an axis.
pub(super) fn lp_norm(call: &Call) -> Outputs {
    let input = call.input(0)?;
    let (outer, size, inner) = around(&input.shape, call.axis(-1, input.shape.len())?);
    let p = call.int("p", 2)?;
    let mut values = call.reals(0)?;
    for index in 0..outer * inner {
        let start = index / inner * size * inner + index % inner;
        let line = (0..size).map(|it| values[start + it * inner]);
        let length: f64 = match p {
            1 => line.map(f64::abs).sum(),
            2 => line.map(|it| it * it).sum::<f64>().sqrt(),
            _ => return Err(call.unsupported("with p beyond 2")),
        };
        if length != 0.0 {
            (0..size).for_each(|it| values[start + it * inner] /= length);
        }
    }
    Ok(vec![real_tensor(input.dtype, &input.shape, values)?])
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn softmax_was_over_all_later_axes_before_version_13() {
        let x = f32s(&[1, 2, 2], &[0., 0., 0., 0.]);
        close(&eval("Softmax", &[&x], Attrs::default()).unwrap(), &[0.5; 4]);
        let old = eval_at(12, "Softmax", &[Some(x)], Attrs::default(), 1).unwrap();
        close(&old[0], &[0.25; 4]);
    }

    /// Computed with numpy in float64.
    #[test]
    fn norms_center_or_not() {
        let x = f32s(&[1, 4], &[1., 2., 3., 6.]);
        let scale = f32s(&[4], &[1., 1., 1., 2.]);
        let expected = [-1.0690434, -0.5345217, 0.0, 3.2071303];
        close(&eval("LayerNormalization", &[&x, &scale], Attrs::default()).unwrap(), &expected);
        let expected = [0.2828426, 0.5656852, 0.8485278, 3.3941112];
        for op in ["RMSNormalization", "SimplifiedLayerNormalization"] {
            close(&eval(op, &[&x, &scale], Attrs::default()).unwrap(), &expected);
        }
    }

    #[test]
    fn the_sum_of_a_skip_norm_is_its_fourth_output() {
        let inputs = [
            Some(f32s(&[1, 2], &[1., 2.])),
            Some(f32s(&[1, 2], &[2., 2.])),
            Some(f32s(&[2], &[1., 1.])),
        ];
        let op = "com.microsoft.SkipSimplifiedLayerNormalization";
        let outputs = eval_at(21, op, &inputs, Attrs::default(), 4).unwrap();
        close(&outputs[3], &[3., 4.]);
        close(&outputs[0], &[0.84852814, 1.1313709]);
    }
}
