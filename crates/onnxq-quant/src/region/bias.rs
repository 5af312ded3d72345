//! The int32 bias of a convolution, which has the scale of its sums.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use onnxq_ir::{
    Model, NoMatch, ValueId, no_match,
    tensor::{DType, QMatrix, QShape, QSource, Tensor, TensorError},
};

/// A bias takes half of what 32 bits hold, and leaves the rest to the products.
const REACH: f32 = (1u32 << 30) as f32;

/// The values of a bias that can become quantized values.
pub(crate) fn values(m: &Model, bias: ValueId) -> Result<Vec<f32>, NoMatch> {
    let values = m.small_f32(bias).map_err(|reason| no_match!("its bias: {reason}"))?;
    match values.iter().all(|it| it.is_finite()) {
        true => Ok(values),
        false => Err(no_match!("its bias `{}` is not finite", m.value(bias).name)),
    }
}

/// A weight whose scales are large enough for a bias: channels of tiny weights and a large bias
/// would overflow. What those lose is small beside the bias.
pub(crate) struct Widened {
    inner: Arc<dyn QSource>,
    /// The least scale of each row.
    least: Vec<f32>,
}

impl Widened {
    /// `x_scale`: of the activation.
    pub(crate) fn new(inner: Arc<dyn QSource>, bias: &[f32], x_scale: f32) -> Widened {
        let least = bias.iter().map(|it| it.abs() / REACH / x_scale).collect();
        Widened { inner, least }
    }
}

impl QSource for Widened {
    fn shape(&self) -> QShape {
        self.inner.shape()
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let mut q = self.inner.solve(rows.clone())?;
        for (row, least) in self.least[rows].iter().enumerate() {
            let (scale, zero) = (q.scales[(row, 0)], f32::from(q.zero_points[(row, 0)]));
            if scale.abs() >= *least {
                continue;
            }
            let ratio = scale / least;
            q.quantized
                .row_mut(row)
                .mapv_inplace(|it| ((f32::from(it) - zero) * ratio + zero).round() as u8);
            q.scales[(row, 0)] = *least;
        }
        Ok(q)
    }
}

/// The scales of the sums, `[n]`, once the weight is solved.
pub(crate) fn scales(weight: Arc<dyn QSource>, x_scale: f32) -> Tensor {
    let n = weight.shape().n;
    Tensor::lazy(DType::F32, vec![n], move || {
        let scales = of(&*weight, x_scale)?;
        Ok(scales.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into())
    })
}

/// The quantized values of a bias, `[n]` of int32, once the weight is solved.
pub(crate) fn quantized(weight: Arc<dyn QSource>, bias: Vec<f32>, x_scale: f32) -> Tensor {
    let n = weight.shape().n;
    Tensor::lazy(DType::I32, vec![n], move || {
        let scales = of(&*weight, x_scale)?;
        let integer = |(bias, scale): (&f32, &f32)| {
            let integer = f64::from(*bias) / f64::from(*scale);
            if integer.is_finite() { integer.round_ties_even() as i32 } else { 0 }
        };
        let bytes = bias.iter().zip(&scales).map(integer).flat_map(i32::to_le_bytes);
        Ok(Bytes::from(bytes.collect::<Vec<u8>>()))
    })
}

fn of(weight: &dyn QSource, x_scale: f32) -> Result<Vec<f32>, TensorError> {
    const ROWS: usize = 64;
    let n = weight.shape().n;
    let mut scales = Vec::with_capacity(n);
    for start in (0..n).step_by(ROWS) {
        let q = weight.solve(start..(start + ROWS).min(n))?;
        scales.extend(q.scales.column(0).iter().map(|it| it * x_scale));
    }
    Ok(scales)
}
