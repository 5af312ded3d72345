//! Normalizations over the last axes.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::{Real, vectorized},
    tape::{Backward, Forward, Gradient, Keeps, Op},
};

/// `y = (x − mean) · inverse · gain + bias`, with `inverse = 1 / √(variance + epsilon)`; without
/// `centered` the mean counts as zero.
pub(super) struct Norm {
    rows: usize,
    width: usize,
    epsilon: f64,
    centered: bool,
    has_bias: bool,
}

impl Norm {
    /// The mean of a row and the inverse of its deviation.
    #[inline(always)]
    fn moments<R: Real>(&self, x: &[R]) -> [R; 2] {
        let width = R::of(self.width as f64);
        let mean = if self.centered { sum(x, |it| it) / width } else { R::default() };
        let square = sum(
            x,
            #[inline(always)]
            |it| (it - mean) * (it - mean),
        ) / width;
        [mean, R::of(1.0) / (square + R::of(self.epsilon)).sqrt()]
    }

    /// The gradient of a row of the input, with `x̂ = (x − mean) · inverse` and `g = dy · gain`:
    /// `inverse · (g − mean(g) − x̂ · mean(g x̂))`.
    #[inline(always)]
    fn back<R: Real>(
        &self,
        [x, gain, dy]: [&[R]; 3],
        [mean, inverse]: [R; 2],
        dx: &mut [R],
        fresh: bool,
    ) {
        let width = R::of(self.width as f64);
        let (mut along, mut total) = ([R::default(); 8], [R::default(); 8]);
        for i in 0..self.width {
            let g = dy[i] * gain[i];
            along[i % 8] += g * (x[i] - mean);
            total[i % 8] += g;
        }
        let along = along.into_iter().sum::<R>() * inverse / width;
        let shift = if self.centered { total.into_iter().sum::<R>() / width } else { R::default() };
        for i in 0..self.width {
            let value = inverse * (dy[i] * gain[i] - shift - (x[i] - mean) * inverse * along);
            dx[i] = if fresh { value } else { dx[i] + value };
        }
    }
}

/// What is read of a norm's inputs: values, gain, shift.
type Operands<'a, R> = (&'a [R], &'a [R], Option<&'a [R]>);

impl Norm {
    /// Without a mean, over the last axis.
    pub(super) fn of_last_axis(shape: &[usize], epsilon: f64) -> Norm {
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / width.max(1);
        Norm { rows, width, epsilon, centered: false, has_bias: false }
    }

    pub(super) fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Elements of what a forward pass keeps of each row.
    pub(super) fn kept(&self) -> usize {
        2 * self.rows
    }

    pub(super) fn normalize<R: Real>(
        &self,
        (x, gain, bias): Operands<'_, R>,
        y: &mut [R],
        saved: &mut [R],
    ) {
        vectorized(|| {
            let rows = x.chunks_exact(self.width).zip(y.chunks_exact_mut(self.width));
            for ((x, y), kept) in rows.zip(saved.as_chunks_mut::<2>().0) {
                let [mean, inverse] = self.moments(x);
                *kept = [mean, inverse];
                for (i, it) in y.iter_mut().enumerate() {
                    *it = (x[i] - mean) * inverse * gain[i];
                }
                if let Some(bias) = bias {
                    y.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
                }
            }
        });
    }

    pub(super) fn back_rows<R: Real>(
        &self,
        [x, gain, dy]: [&[R]; 3],
        moments: &[R],
        dx: &mut Gradient<R>,
    ) {
        let (width, moments) = (self.width, moments.as_chunks::<2>().0);
        let fresh = std::mem::take(&mut dx.fresh);
        vectorized(|| {
            for (row, dx) in dx.values.chunks_exact_mut(width).enumerate() {
                let range = row * width..(row + 1) * width;
                self.back([&x[range.clone()], gain, &dy[range]], moments[row], dx, fresh);
            }
        });
    }

    pub(super) fn back_gain<R: Real>(
        &self,
        [x, dy]: [&[R]; 2],
        moments: &[R],
        dgain: &mut Gradient<R>,
    ) {
        let sums = dgain.cleared();
        vectorized(|| {
            let rows = x.chunks_exact(self.width).zip(dy.chunks_exact(self.width));
            for ((x, dy), [mean, inverse]) in rows.zip(moments.as_chunks::<2>().0) {
                for (i, it) in sums.iter_mut().enumerate() {
                    *it += dy[i] * (x[i] - *mean) * *inverse;
                }
            }
        });
    }
}

impl<R: Real> Op<R> for Norm {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let bias = self.has_bias.then(|| at.x(2));
        self.normalize((at.x(0), at.x(1), bias), at.y, &mut at.saved[0]);
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (x, gain, dy, width) = (at.x(0), at.x(1), at.dy, self.width);
        let moments = &at.saved[0];
        if let Some(dx) = at.grad(0) {
            self.back_rows([x, gain, dy], moments, dx);
        }
        if let Some(dgain) = at.grad(1) {
            self.back_gain([x, dy], moments, dgain);
        }
        if self.has_bias
            && let Some(dbias) = at.grad(2)
        {
            let sums = dbias.cleared();
            for row in dy.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(it, d)| *it += *d);
            }
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[0, 1])
    }

    fn saves(&self) -> Vec<usize> {
        vec![self.kept()]
    }
}

/// Sums in eight lanes, whatever the CPU has.
#[inline(always)]
fn sum<R: Real>(x: &[R], of: impl Fn(R) -> R) -> R {
    let mut lanes = [R::default(); 8];
    let mut chunks = x.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane += of(*it);
        }
    }
    let rest: R = chunks.remainder().iter().map(|it| of(*it)).sum();
    lanes.into_iter().sum::<R>() + rest
}

pub(super) fn layer_norm<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    norm(site, true)
}

pub(super) fn rms_norm<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    norm(site, false)
}

fn norm<R: Real>(site: &mut Site<'_, '_, R>, centered: bool) -> Result<Lowered<R>, NoMatch> {
    if site.output > 0 {
        return Err(no_match!("its output {} is used", site.output));
    }
    let x = site.slot(0)?;
    let shape = site.shape(x);
    let axis = site.int("axis", -1);
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|it| *it < shape.len());
    let axis = axis.ok_or_else(|| no_match!("its axis is outside of {shape:?}"))?;
    let width: usize = shape[axis..].iter().product();
    let mut inputs = vec![x, site.slot(1)?];
    let has_bias = centered && site.has_input(2);
    if has_bias {
        inputs.push(site.slot(2)?);
    }
    if let Some(it) =
        inputs[1..].iter().find(|it| site.shape(**it).iter().product::<usize>() != width)
    {
        return Err(no_match!("a parameter of shape {:?} for rows of {width}", site.shape(*it)));
    }
    let rows = shape[..axis].iter().product();
    let epsilon = site.float("epsilon", 1e-5);
    Ok(Lowered::new(Norm { rows, width, epsilon, centered, has_bias }, inputs, shape))
}
