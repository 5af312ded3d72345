//! Normalizations of a sum: `com.microsoft.SkipSimplifiedLayerNormalization`.

use onnxq_ir::{NoMatch, no_match};

use super::{Lowered, binary, norm::Norm};
use crate::{
    lower::Site,
    real::Real,
    tape::{Backward, Forward, Keeps, Op},
};

/// The normalization of `x + skip`. The sum is an output of its own too, which is a step of its own.
struct SkipNorm(Norm);

impl<R: Real> Op<R> for SkipNorm {
    fn forward(&self, at: &mut Forward<'_, R>) {
        let (x, skip, gain) = (at.x(0), at.x(1), at.x(2));
        let [sum, moments] = &mut *at.saved else { panic!("two buffers were asked for") };
        for (i, it) in sum.iter_mut().enumerate() {
            *it = x[i] + skip[i];
        }
        self.0.normalize((sum, gain, None), at.y, moments);
    }

    fn backward(&self, at: &mut Backward<'_, R>) {
        let (gain, dy) = (at.x(2), at.dy);
        let [sum, moments] = at.saved else { panic!("two buffers were asked for") };
        for index in [0, 1] {
            if let Some(dx) = at.grad(index) {
                self.0.back_rows([sum, gain, dy], moments, dx);
            }
        }
        if let Some(dgain) = at.grad(2) {
            self.0.back_gain([sum, dy], moments, dgain);
        }
    }

    fn keeps(&self) -> Keeps {
        Keeps::inputs(&[2])
    }

    fn saves(&self) -> Vec<usize> {
        vec![self.0.elements(), self.0.kept()]
    }
}

pub(super) fn skip_rms_norm<R: Real>(site: &mut Site<'_, '_, R>) -> Result<Lowered<R>, NoMatch> {
    match site.output {
        0 => {}
        3 => return binary::add_first(site),
        it => return Err(no_match!("its output {it} is used")),
    }
    if site.has_input(3) {
        return Err(no_match!("it adds a bias"));
    }
    let inputs = vec![site.slot(0)?, site.slot(1)?, site.slot(2)?];
    let shape = site.shape(inputs[0]);
    if site.shape(inputs[1]) != shape {
        return Err(no_match!("it adds values of different shapes"));
    }
    let norm = Norm::of_last_axis(&shape, site.float("epsilon", 1e-12));
    Ok(Lowered::new(SkipNorm(norm), inputs, shape))
}
