//! SignRound: offsets of rounding and scales, descended jointly by the signs of their gradients.
//!
//! Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of
//! LLMs", 2023 (arXiv 2309.05516), with one weight's output error in place of a block's: its
//! gradient needs the Hessian of the inputs and no samples. That descent stops where no small step
//! shows a gain; single roundings and scales that still do are found by polishing, as after GPTQ.

mod descent;
#[cfg(test)]
mod tests;

use ndarray::{Array2, ArrayView2};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::descent::Descent;
use super::{
    BadStats, Prepared, Solver, Target,
    blocks::{of_blocks, round},
    gptq::{Polish, damped},
    grid::grid,
    lanes::LANES,
    search,
};
use crate::{
    guided::{self, Hessians},
    scheme::Scheme,
    specs::{Settings, Wrong, within},
    stats::{InputStats, Needs},
};
use onnxq_ir::tensor::{QMatrix, QShape};

/// A damped Hessian.
pub struct Curvature {
    /// `H + λ I`, `[k, k]`.
    hessian: Array2<f32>,
    /// What the damping added to the diagonal, `[k]`.
    damping: Vec<f32>,
}

/// Signed gradient descent on roundings and scales at once. Needs data, and takes some fifty times the
/// sums of GPTQ to find about as good a weight; which is better depends on the model.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Signround {
    /// Steps of the descent, 1 to 10000; each costs a product with the Hessian. Default: 200.
    #[schemars(range(min = 1, max = 10000))]
    pub iterations: u32,
    /// The first step of an offset, in quantized values; steps shrink to none. Default: one over
    /// `iterations`.
    #[schemars(range(min = 0, max = 1))]
    pub learning_rate: Option<f32>,
    /// Afterwards find better scales and quantized values, given all others.
    pub polish: bool,
    /// What is added to the Hessian's diagonal, as a part of its mean: 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub damping: f32,
    /// Which tokens the Hessian is made of.
    pub hessian: Hessians,
    /// Groups of output channels that have a guided Hessian each, 1 to 4. Default: 1.
    #[schemars(range(min = 1, max = 4))]
    pub groups: u32,
}

impl Default for Signround {
    fn default() -> Signround {
        Signround {
            iterations: 200,
            learning_rate: None,
            polish: true,
            damping: 0.01,
            hessian: Hessians::Inputs,
            groups: 1,
        }
    }
}

impl Settings for Signround {
    fn check(&self) -> Result<(), Wrong> {
        within("iterations", self.iterations, 1..=10_000)?;
        within("learning_rate", self.rate(), 0.0..=1.0)?;
        within("damping", self.damping, 0.0..=1.0)?;
        guided::check(self.hessian, self.groups)
    }
}

impl Signround {
    fn rate(&self) -> f32 {
        self.learning_rate.unwrap_or(1.0 / self.iterations as f32)
    }
}

impl Solver for Signround {
    fn needs(&self) -> Needs {
        Needs::Hessian
    }

    fn groups(&self) -> Option<usize> {
        (self.hessian == Hessians::Guided).then_some(self.groups as usize)
    }

    fn prepare(&self, stats: &InputStats) -> Result<Prepared, BadStats> {
        let (hessian, damping) = damped(stats, self.damping)?;
        let curvature = Some(Curvature { hessian, damping });
        let target = Target::new(stats);
        Ok(Prepared { curvature, target, ..Prepared::of(stats) })
    }

    fn fits(&self, scheme: &Scheme) -> Result<(), &'static str> {
        match scheme.is_plain() {
            true => Ok(()),
            false => Err("it knows no minimums and no scales that are integers: take mse or gptq"),
        }
    }

    fn solve(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        input: Option<&Prepared>,
    ) -> QMatrix {
        let n = rows.nrows();
        let mut q = QMatrix::zeros(shape, n);
        let importance = input.map(|it| &*it.importance);
        let found = of_blocks(rows, (scheme, shape), importance, |group, values| {
            let start = group * shape.block;
            let weights = importance.map(|it| &it[start..start + values.len()]);
            search::fit(values, weights, scheme, shape.scale)
        });
        let Some(curvature) = input.and_then(|it| it.curvature.as_ref()) else {
            round(rows, &found, &mut q);
            return q;
        };
        let plain = of_blocks(rows, (scheme, shape), None, |_, it| grid(it, scheme, shape.scale));
        let mut descent = Descent::new(curvature, shape);
        let mut polish = self.polish.then(|| Polish::new(&curvature.hessian, shape));
        for first in (0..n).step_by(LANES) {
            descent.start(first, rows);
            descent.consider(&plain);
            descent.descend(&found, self.iterations, self.rate());
            polish.iter_mut().for_each(|it| descent.polish(it));
            descent.write(&mut q);
        }
        q
    }
}
