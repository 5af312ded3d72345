//! Convolutions, in floats and in integers, and the transposed one.

use rayon::prelude::*;

use super::{
    EvalError,
    call::Call,
    index::{elements, same_dtype},
    matmul::{Matrix, Number},
    quant::{Scales, saturate, zero_points},
    table::Outputs,
    values::{int_tensor, ints, only, real_tensor, reals},
    window::{Window, sizes},
};
use crate::tensor::{DType, Tensor};

pub(super) fn conv(call: &Call) -> Outputs {
    let (input, weight) = (call.input(0)?, call.input(1)?);
    let dtype = same_dtype(&[input, weight])?;
    let x = Matrix { shape: input.shape.clone(), values: reals(input)? };
    let w = Matrix { shape: weight.shape.clone(), values: reals(weight)? };
    let mut result = convolve(call, &x, &w)?;
    if let Some(bias) = call.optional(2) {
        add_bias(call, &mut result, &reals(bias)?, |it, bias| *it += bias)?;
    }
    Ok(vec![real_tensor(dtype, &result.shape, result.values)?])
}

/// Integers without scales, summed in `int32`.
pub(super) fn conv_integer(call: &Call) -> Outputs {
    let x = shifted(call.input(0)?, call.optional(2), 0)?;
    let w = shifted(call.input(1)?, call.optional(3), 0)?;
    let result = convolve(call, &x, &w)?;
    let values = result.values.into_iter().map(i128::from);
    Ok(vec![int_tensor(DType::I32, &result.shape, values)?])
}

/// Inputs: x, its scale and zero, w, its scales and zero points by output channel, those of y,
/// bias.
pub(super) fn qlinear_conv(call: &Call) -> Outputs {
    let x = shifted(call.input(0)?, call.optional(2), 0)?;
    let w = shifted(call.input(3)?, call.optional(5), 0)?;
    let mut result = convolve(call, &x, &w)?;
    if let Some(bias) = call.optional(8) {
        add_bias(call, &mut result, &ints(bias)?, |it, bias| *it = it.wrapping_add(bias))?;
    }
    let (x_scale, y_scale) = (call.input(1)?.to_f32()?, call.input(6)?.to_f32()?);
    let (x_scale, y_scale) = (only(call.input(1)?, x_scale)?, only(call.input(6)?, y_scale)?);
    let factors = call.input(4)?.to_f32()?.into_iter().map(|it| x_scale * it / y_scale);
    let factors = Scales::new(call, factors.collect(), result.shape[1])?;
    let zero = call.input(7)?;
    let shift = only(zero, ints(zero)?)?;
    let inner = result.shape[2..].iter().product::<usize>().max(1);
    let channels = result.shape[1].max(1);
    let values =
        result.values.iter().enumerate().map(|(i, it)| {
            saturate(*it as f32 * factors.at(i / inner % channels), shift, zero.dtype)
        });
    Ok(vec![int_tensor(zero.dtype, &result.shape, values)?])
}

/// Each input spreads a scaled kernel over the output.
pub(super) fn conv_transpose(call: &Call) -> Outputs {
    let (input, weight) = (call.input(0)?, call.input(1)?);
    let dtype = same_dtype(&[input, weight])?;
    let (x, w) = (reals(input)?, reals(weight)?);
    let group = group(call)?;
    let ([batch, channels, small @ ..], [depth, per_group, kernel @ ..]) =
        (&input.shape[..], &weight.shape[..])
    else {
        return Err(call.shape_error("no channels"));
    };
    if channels != depth || channels % group != 0 {
        return Err(call.shape_error("channels do not fit the groups"));
    }
    let (window, big) = spread(call, kernel, small)?;
    let filters = per_group.checked_mul(group).ok_or_else(|| call.shape_error("group"))?;
    let shape = [&[*batch, filters], &big[..]].concat();
    let size = elements(&shape)? / (batch * filters).max(1);
    let taps = window.taps(small, &big)?;
    let (area, kernel, depth) = (small.iter().product::<usize>(), taps.len(), channels / group);
    let mut values = vec![0.0; batch * filters * size];
    values.par_chunks_mut(size.max(1)).enumerate().for_each(|(index, out)| {
        let (sample, filter) = (index / filters, index % filters);
        let (part, own) = (filter / per_group, filter % per_group);
        for channel in part * depth..(part + 1) * depth {
            let x = &x[(sample * channels + channel) * area..][..area];
            let w = &w[(channel * per_group + own) * kernel..][..kernel];
            for (w, pairs) in w.iter().zip(&taps) {
                pairs.iter().for_each(|(from, to)| out[*to] += w * x[*from]);
            }
        }
    });
    let mut result = Matrix { shape, values };
    if let Some(bias) = call.optional(2) {
        add_bias(call, &mut result, &reals(bias)?, |it, bias| *it += bias)?;
    }
    Ok(vec![real_tensor(dtype, &result.shape, result.values)?])
}

/// `x [n, c, …]` with `w [filters, c / group, …]`.
fn convolve<T: Number>(call: &Call, x: &Matrix<T>, w: &Matrix<T>) -> Result<Matrix<T>, EvalError> {
    let group = group(call)?;
    let ([batch, channels, image @ ..], [filters, depth, kernel @ ..]) =
        (&x.shape[..], &w.shape[..])
    else {
        return Err(call.shape_error("no channels"));
    };
    if depth.checked_mul(group) != Some(*channels) || filters % group != 0 {
        return Err(call.shape_error("channels do not fit the groups"));
    }
    let window = Window::of(call, kernel, image)?;
    let positions = window.positions(image, false)?;
    let shape = [&[*batch, *filters], &positions[..]].concat();
    let mut values = vec![T::default(); elements(&shape)?];
    let taps = window.taps(&positions, image)?;
    let (area, kernel) = (image.iter().product::<usize>(), taps.len());
    let size = positions.iter().product::<usize>();
    values.par_chunks_mut(size.max(1)).enumerate().for_each(|(index, out)| {
        let (sample, filter) = (index / filters, index % filters);
        let first = filter / (filters / group) * depth;
        for channel in 0..*depth {
            let x = &x.values[(sample * channels + first + channel) * area..][..area];
            let w = &w.values[(filter * depth + channel) * kernel..][..kernel];
            for (w, pairs) in w.iter().zip(&taps) {
                pairs.iter().for_each(|(to, from)| out[*to] = out[*to].add_product(*w, x[*from]));
            }
        }
    });
    Ok(Matrix { shape, values })
}

/// The window of a transposed convolution and the size of its output.
fn spread(
    call: &Call,
    kernel: &[usize],
    small: &[usize],
) -> Result<(Window, Vec<usize>), EvalError> {
    let rank = small.len();
    let extra = sizes(call, "output_padding", 0)?.unwrap_or_else(|| vec![0; rank]);
    // `auto_pad` means something else here, so it is read below.
    let auto = call.text("auto_pad", "NOTSET")?;
    let mut window = Window::of(call, kernel, small)?;
    let given = sizes(call, "output_shape", 0)?;
    let wrong_rank = given.as_ref().is_some_and(|it| it.len() != rank) || extra.len() != rank;
    if wrong_rank || small.contains(&0) {
        return Err(call.shape_error("the window does not fit"));
    }
    let mut big = Vec::with_capacity(rank);
    for axis in 0..rank {
        let stride = window.strides[axis];
        let full = stride * (small[axis] - 1) + extra[axis] + window.reach(axis);
        let target = match (&given, auto) {
            (Some(it), _) => Some(it[axis]),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(small[axis] * stride),
            _ => None,
        };
        if let Some(target) = target {
            let pad = full.saturating_sub(target);
            let half = pad / 2;
            let upper = auto == "SAME_UPPER";
            (window.before[axis], window.after[axis]) =
                if upper { (half, pad - half) } else { (pad - half, half) };
        }
        let pads = window.before[axis] + window.after[axis];
        big.push(target.unwrap_or_else(|| full.saturating_sub(pads)));
    }
    elements(&big)?;
    Ok((window, big))
}

fn group(call: &Call) -> Result<usize, EvalError> {
    let group = usize::try_from(call.int("group", 1)?).unwrap_or(0);
    if group == 0 { Err(call.shape_error("group")) } else { Ok(group) }
}

/// Integers minus their zero point, which may differ along `axis`.
fn shifted(tensor: &Tensor, zero: Option<&Tensor>, axis: usize) -> Result<Matrix<i64>, EvalError> {
    let values = zero_points(tensor, zero, axis)?;
    Ok(Matrix { shape: tensor.shape.clone(), values })
}

fn add_bias<T: Copy>(
    call: &Call,
    result: &mut Matrix<T>,
    bias: &[T],
    add: impl Fn(&mut T, T),
) -> Result<(), EvalError> {
    let channels = result.shape[1];
    if bias.len() != channels {
        return Err(call.shape_error("the bias differs from the channels"));
    }
    let inner = result.shape[2..].iter().product::<usize>().max(1);
    for (line, values) in result.values.chunks_exact_mut(inner).enumerate() {
        values.iter_mut().for_each(|it| add(it, bias[line % channels]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn a_kernel_sums_its_neighbourhood() {
        let x = f32s(&[1, 1, 3, 3], &[1., 2., 3., 4., 5., 6., 7., 8., 9.]);
        let w = f32s(&[1, 1, 2, 2], &[1.; 4]);
        let valid = eval("Conv", &[&x, &w], Attrs::default()).unwrap();
        assert_eq!(valid.shape, [1, 1, 2, 2]);
        close(&valid, &[12., 16., 24., 28.]);
        let same = Attrs::default().with("auto_pad", "SAME_UPPER");
        let same = eval("Conv", &[&x, &w, &f32s(&[1], &[0.5])], same).unwrap();
        close(&same, &[12.5, 16.5, 9.5, 24.5, 28.5, 15.5, 15.5, 17.5, 9.5]);
        let groups = Attrs::default().with("group", 2i64);
        assert!(eval("Conv", &[&x, &w], groups).is_err());
    }

    #[test]
    fn a_transposed_kernel_spreads() {
        let x = f32s(&[1, 1, 2], &[1., 2.]);
        let w = f32s(&[1, 1, 3], &[1., 10., 100.]);
        let attrs = Attrs::default().with("strides", vec![2i64]);
        close(&eval("ConvTranspose", &[&x, &w], attrs).unwrap(), &[1., 10., 102., 20., 200.]);
    }
}
