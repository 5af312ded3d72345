//! Pools: the mean or the maximum under a window, or of a whole channel.

use super::{
    EvalError,
    call::{Call, wrong},
    index::elements,
    math,
    table::Outputs,
    values::{Values, int_tensor, numbers, real_tensor},
    window::{Window, sizes},
};
use crate::tensor::Tensor;

/// With a second output: where in the whole input each maximum lies.
pub(super) fn max_pool(call: &Call) -> Outputs {
    if call.flag("storage_order", false)? && call.outputs > 1 {
        return Err(call.unsupported("with column-major indices"));
    }
    let pool = Pool::of(call)?;
    let input = call.input(0)?;
    let values = numbers(input)?;
    let (mut best, mut places) = (Vec::new(), Vec::new());
    for (channel, values) in values.chunks_exact(pool.area.max(1)).enumerate() {
        let mut line = vec![(f64::NEG_INFINITY, 0); pool.count];
        for (to, from) in pool.taps.iter().flatten() {
            if math::max(line[*to].0, values[*from]) != line[*to].0 {
                line[*to] = (values[*from], channel * pool.area + from);
            }
        }
        best.extend(line.iter().map(|it| it.0));
        places.extend(line.iter().map(|it| it.1 as i64));
    }
    Ok(vec![numbers_tensor(input, &pool.shape, best)?, Tensor::from_i64(&pool.shape, places)])
}

/// Padding counts only if so asked, and never behind the padded image.
pub(super) fn average_pool(call: &Call) -> Outputs {
    let pool = Pool::of(call)?;
    let input = call.input(0)?;
    let counts = match call.flag("count_include_pad", false)? {
        true => pool.padded_counts()?,
        false => pool.counts(&pool.taps),
    };
    let mut means = Vec::new();
    for values in call.reals(0)?.chunks_exact(pool.area.max(1)) {
        let mut sums = vec![0.0; pool.count];
        pool.taps.iter().flatten().for_each(|(to, from)| sums[*to] += values[*from]);
        means.extend(sums.iter().zip(&counts).map(|(sum, count)| sum / count));
    }
    Ok(vec![real_tensor(input.dtype, &pool.shape, means)?])
}

pub(super) fn global_average_pool(call: &Call) -> Outputs {
    whole(call, |values| values.iter().sum::<f64>() / values.len() as f64)
}

pub(super) fn global_max_pool(call: &Call) -> Outputs {
    whole(call, |values| values.iter().copied().fold(f64::NEG_INFINITY, math::max))
}

fn whole(call: &Call, f: fn(&[f64]) -> f64) -> Outputs {
    let input = call.input(0)?;
    let [batch, channels, ref image @ ..] = input.shape[..] else {
        return Err(call.shape_error("no channels"));
    };
    let area = image.iter().product::<usize>();
    if area == 0 {
        return Err(call.shape_error("nothing to pool"));
    }
    let mut shape = vec![1; input.shape.len()];
    (shape[0], shape[1]) = (batch, channels);
    let values = call.reals(0)?;
    Ok(vec![real_tensor(input.dtype, &shape, values.chunks_exact(area).map(f))?])
}

struct Pool {
    window: Window,
    image: Vec<usize>,
    positions: Vec<usize>,
    /// The shape of the result.
    shape: Vec<usize>,
    /// Elements of a channel of the input, and of the result.
    area: usize,
    count: usize,
    taps: Vec<Vec<(usize, usize)>>,
}

impl Pool {
    fn of(call: &Call) -> Result<Pool, EvalError> {
        let [batch, channels, ref image @ ..] = call.input(0)?.shape[..] else {
            return Err(call.shape_error("no channels"));
        };
        let kernel =
            sizes(call, "kernel_shape", 1)?.ok_or_else(|| wrong("kernel_shape", "is missing"))?;
        let window = Window::of(call, &kernel, image)?;
        let positions = window.positions(image, call.flag("ceil_mode", false)?)?;
        let shape = [&[batch, channels], &positions[..]].concat();
        elements(&shape)?;
        let taps = window.taps(&positions, image)?;
        let (area, count) = (image.iter().product(), positions.iter().product());
        Ok(Pool { window, image: image.to_vec(), positions, shape, area, count, taps })
    }

    fn counts(&self, taps: &[Vec<(usize, usize)>]) -> Vec<f64> {
        let mut counts = vec![0.0; self.count];
        taps.iter().flatten().for_each(|(to, _)| counts[*to] += 1.0);
        counts
    }

    /// As if the padding were a part of the image.
    fn padded_counts(&self) -> Result<Vec<f64>, EvalError> {
        let mut window = self.window.clone();
        let mut image = self.image.clone();
        for (axis, size) in image.iter_mut().enumerate() {
            *size += window.before[axis] + window.after[axis];
        }
        elements(&image)?;
        window.before.fill(0);
        Ok(self.counts(&window.taps(&self.positions, &image)?))
    }
}

/// Numbers in the type of `like`.
pub(super) fn numbers_tensor(
    like: &Tensor,
    shape: &[usize],
    values: Vec<f64>,
) -> Result<Tensor, EvalError> {
    if like.dtype.is_float() {
        return Values::Real(values).tensor(like.dtype, shape);
    }
    int_tensor(like.dtype, shape, values.into_iter().map(|it| it as i128))
}

#[cfg(test)]
mod tests {
    use crate::{eval::testing::*, ir::Attrs};

    #[test]
    fn means_leave_out_the_padding_unless_asked() {
        let x = f32s(&[1, 1, 3], &[3., 6., 9.]);
        let attrs =
            || Attrs::default().with("kernel_shape", vec![2i64]).with("pads", vec![1i64, 0]);
        close(&eval("AveragePool", &[&x], attrs()).unwrap(), &[3., 4.5, 7.5]);
        let counted = attrs().with("count_include_pad", 1i64);
        close(&eval("AveragePool", &[&x], counted).unwrap(), &[1.5, 4.5, 7.5]);
    }

    #[test]
    fn maxima_know_their_place() {
        let x = f32s(&[1, 1, 4], &[1., 4., 2., 3.]);
        let attrs = Attrs::default().with("kernel_shape", vec![2i64]).with("strides", vec![2i64]);
        let outputs = eval_at(12, "MaxPool", &[Some(x)], attrs, 2).unwrap();
        close(&outputs[0], &[4., 3.]);
        assert_eq!(outputs[1].to_i64().unwrap(), [1, 3]);
    }
}
