//! Operators of one element each.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::{Real, vectorized},
    tape::{Backward, Forward, Keeps, Op},
};

/// A function of one number and its slope.
trait Scalar<R>: Send + Sync + 'static {
    /// Whether the slope follows from the result alone, so that the input need not be kept.
    const BY_RESULT: bool = false;
    fn value(&self, x: R) -> R;
    /// At `x`, where the value is `y`; one of the two is not known, as [`Scalar::BY_RESULT`] says.
    fn slope(&self, x: R, y: R) -> R;
}

struct Map<F>(F);

impl<R: Real, F: Scalar<R>> Op<R> for Map<F> {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let x = at.x(0);
        vectorized(|| {
            for (y, x) in at.y.iter_mut().zip(x) {
                *y = self.0.value(*x);
            }
        });
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        let kept = if F::BY_RESULT { at.y() } else { at.x(0) };
        let Some(dx) = at.grad(0) else { return };
        vectorized(|| {
            dx.add(
                #[inline(always)]
                |i| dy[i] * self.0.slope(kept[i], kept[i]),
            )
        });
    }

    fn keeps(&self) -> Keeps {
        if F::BY_RESULT { Keeps::OUTPUT } else { Keeps::inputs(&[0]) }
    }
}

fn map<R: Real>(site: &mut Site<'_, '_, R>, of: impl Scalar<R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.slot(0)?;
    let shape = site.shape(x);
    Ok(Lowered::new(Map(of), vec![x], shape))
}

macro_rules! scalar {
    ($row:ident, $name:ident, by_result, |$y:ident| $slope:expr, |$x:ident| $value:expr) => {
        scalar!(@make $row, $name, true, $x, $value, $y, $slope);
    };
    ($row:ident, $name:ident, |$x:ident| $value:expr, |$z:ident| $slope:expr) => {
        scalar!(@make $row, $name, false, $x, $value, $z, $slope);
    };
    (@make $row:ident, $name:ident, $by:literal, $x:ident, $value:expr, $z:ident, $slope:expr) => {
        struct $name;
        impl<R: Real> Scalar<R> for $name {
            const BY_RESULT: bool = $by;
            #[inline(always)]
            fn value(&self, $x: R) -> R {
                $value
            }
            #[inline(always)]
            fn slope(&self, $z: R, _: R) -> R {
                $slope
            }
        }
        pub(super) fn $row<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
            map(site, $name)
        }
    };
}

#[inline(always)]
fn num<R: Real>(number: f64) -> R {
    R::of(number)
}

scalar!(abs, Abs, |x| x.abs(), |x| sign(x));
scalar!(erf, Erf, |x| x.erf(), |x| num::<R>(std::f64::consts::FRAC_2_SQRT_PI) * (-(x * x)).exp());
scalar!(exp, Exp, by_result, |y| y, |x| x.exp());
scalar!(log, Log, |x| x.ln(), |x| num::<R>(1.0) / x);
scalar!(neg, Neg, |x| -x, |_x| num(-1.0));
scalar!(reciprocal, Reciprocal, by_result, |y| -(y * y), |x| num::<R>(1.0) / x);
scalar!(relu, Relu, |x| x.max(R::default()), |x| step(x));
scalar!(sigmoid, Sigmoid, by_result, |y| y * (num::<R>(1.0) - y), |x| x.sigmoid());
scalar!(sqrt, Sqrt, by_result, |y| num::<R>(0.5) / y, |x| x.sqrt());
scalar!(tanh, Tanh, by_result, |y| num::<R>(1.0) - y * y, |x| x.tanh());

#[inline(always)]
fn sign<R: Real>(x: R) -> R {
    let zero = R::default();
    if x > zero {
        num(1.0)
    } else if x < zero {
        num(-1.0)
    } else {
        zero
    }
}

#[inline(always)]
fn step<R: Real>(x: R) -> R {
    if x > R::default() { num(1.0) } else { R::default() }
}

/// `x · sigmoid(alpha · x)`: SiLU where alpha is 1.
struct Quick<R>(R);

impl<R: Real> Scalar<R> for Quick<R> {
    #[inline(always)]
    fn value(&self, x: R) -> R {
        x * (self.0 * x).sigmoid()
    }

    #[inline(always)]
    fn slope(&self, x: R, _: R) -> R {
        let s = (self.0 * x).sigmoid();
        s * (num::<R>(1.0) + self.0 * x * (num::<R>(1.0) - s))
    }
}

pub(super) fn quick_gelu<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let alpha = R::of(site.float("alpha", 1.702));
    map(site, Quick(alpha))
}

/// `x · Φ(x)`, with the normal distribution's Φ.
struct Exact;

impl<R: Real> Scalar<R> for Exact {
    #[inline(always)]
    fn value(&self, x: R) -> R {
        let half: R = num(0.5);
        half * x * (num::<R>(1.0) + (x * num(std::f64::consts::FRAC_1_SQRT_2)).erf())
    }

    #[inline(always)]
    fn slope(&self, x: R, _: R) -> R {
        let half: R = num(0.5);
        let phi = half * (num::<R>(1.0) + (x * num(std::f64::consts::FRAC_1_SQRT_2)).erf());
        // 1 / √(2π)
        phi + x * num(0.398_942_280_401_432_7) * (-(half * x * x)).exp()
    }
}

/// The approximation by tanh.
struct ByTanh;

const BY_TANH: [f64; 2] = [0.797_884_560_802_865_4, 0.044_715];

impl<R: Real> Scalar<R> for ByTanh {
    #[inline(always)]
    fn value(&self, x: R) -> R {
        let [a, b] = BY_TANH.map(num::<R>);
        num::<R>(0.5) * x * (num::<R>(1.0) + (a * (x + b * x * x * x)).tanh())
    }

    #[inline(always)]
    fn slope(&self, x: R, _: R) -> R {
        let ([a, b], half, one) = (BY_TANH.map(num::<R>), num::<R>(0.5), num::<R>(1.0));
        let t = (a * (x + b * x * x * x)).tanh();
        half * (one + t) + half * x * (one - t * t) * a * (one + num::<R>(3.0) * b * x * x)
    }
}

pub(super) fn gelu<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let by_tanh =
        site.node().attrs.get("approximate").and_then(|it| it.as_bytes()) == Some(b"tanh");
    if by_tanh { map(site, ByTanh) } else { map(site, Exact) }
}

/// `x` to a constant power.
struct Power<R>(R);

impl<R: Real> Scalar<R> for Power<R> {
    #[inline(always)]
    fn value(&self, x: R) -> R {
        match self.0.wide() {
            2.0 => x * x,
            3.0 => x * x * x,
            _ => x.powf(self.0),
        }
    }

    #[inline(always)]
    fn slope(&self, x: R, _: R) -> R {
        match self.0.wide() {
            2.0 => x + x,
            3.0 => num::<R>(3.0) * x * x,
            _ => self.0 * x.powf(self.0 - num(1.0)),
        }
    }
}

pub(super) fn pow<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let by = site.constant(1)?;
    let [by] = number(&by)?[..] else { return Err(no_match!("the exponent is no single number")) };
    map(site, Power(R::of_f32(by)))
}

/// Limits, beyond which the slope is zero.
struct Limits<R>(R, R);

impl<R: Real> Scalar<R> for Limits<R> {
    #[inline(always)]
    fn value(&self, x: R) -> R {
        x.max(self.0).min(self.1)
    }

    #[inline(always)]
    fn slope(&self, x: R, _: R) -> R {
        if x >= self.0 && x <= self.1 { num(1.0) } else { R::default() }
    }
}

pub(super) fn clip<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let mut limits = [f32::MIN, f32::MAX];
    for (index, limit) in limits.iter_mut().enumerate() {
        if site.has_input(index + 1) {
            let tensor = site.constant(index + 1)?;
            let [it] = number(&tensor)?[..] else { return Err(no_match!("a limit is no number")) };
            *limit = it;
        }
    }
    map(site, Limits(R::of_f32(limits[0]), R::of_f32(limits[1])))
}

fn number(tensor: &onnxq_ir::tensor::Tensor) -> Result<Vec<f32>, NoMatch> {
    let failed = |err| no_match!("{err}");
    if tensor.dtype.is_float() {
        return tensor.cast(onnxq_ir::tensor::DType::F32).to_f32().map_err(failed);
    }
    Ok(tensor.to_i64().map_err(failed)?.into_iter().map(|it| it as f32).collect())
}
