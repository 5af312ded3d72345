//! Activations in eight bits: rounded forward, straight through in reverse.
//!
//! The gradient passes `round` as if it were not there (Bengio et al., "Estimating or Propagating
//! Gradients Through Stochastic Neurons", 2013). Dequantized weights are leaves, not steps.

use onnxq_ir::{NoMatch, no_match};

use super::Lowered;
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

/// `DequantizeLinear(DynamicQuantizeLinear(x))`, with one range for the whole value.
struct Rounded;

impl<R: Real> Op<R> for Rounded {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (x, zero, most) = (at.x(0), R::default(), R::of(255.0));
        let low = x.iter().fold(zero, |a, b| a.min(*b));
        let high = x.iter().fold(zero, |a, b| a.max(*b));
        let scale = (high - low) / most;
        if scale == zero {
            return at.y.fill(zero);
        }
        let place = (-low / scale).round().max(zero).min(most);
        for (y, x) in at.y.iter_mut().zip(x) {
            let code = ((*x / scale).round() + place).max(zero).min(most);
            *y = (code - place) * scale;
        }
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let dy = at.dy;
        if let Some(dx) = at.grad(0) {
            dx.add(|i| dy[i]);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::NOTHING
    }
}

pub(super) fn dequantize<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    let x = site.before_quantizing(0);
    let x =
        x.ok_or_else(|| no_match!("only weights and dynamic activations can be trained through"))?;
    let x = site.slot_of(x)?;
    let shape = site.shape(x);
    Ok(Lowered::new(Rounded, vec![x], shape))
}
