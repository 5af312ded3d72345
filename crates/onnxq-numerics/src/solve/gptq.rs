//! GPTQ: columns are rounded in turn, and what rounding one costs is taken back by later ones.
//!
//! Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers", 2022, in the form of Chee et al., "QuIP", 2023, appendix: with `H = Lᵀ L`, `L`
//! lower triangular, the output error of a row is `‖L Δ‖²`, `Δ = w − ŵ`. Its `j`-th term holds only
//! the columns up to `j`, so column `j` is rounded at the place where that term would vanish.
//! That is the same as the row-wise feedback through the Cholesky factor of the inverse, without
//! an inverse, and the sum of the terms is the output error, which pays for the guard: no row is
//! worse on the calibration data than plain rounding. What GPTQ finds is then polished.

mod feedback;
mod polish;
#[cfg(test)]
pub(super) mod tests;
mod tile;

use ndarray::ArrayView2;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::feedback::Feedback;
use self::tile::Tile;
pub(super) use self::{feedback::damped, polish::Polish};
use super::{
    BadStats, Prepared, Solver, Target,
    blocks::{Grids, of_blocks, round},
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

/// Error feedback through the Hessian of the inputs. Needs data.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gptq {
    /// Where the scale and zero of each block come from.
    pub grid: GridChoice,
    /// Round the columns with the largest inputs first.
    pub act_order: bool,
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

/// Where the grid of a block comes from; it is fixed before any feedback. Only polishing changes
/// its scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GridChoice {
    /// The block's whole range.
    Rtn,
    /// The range of least squared error.
    Mse,
    /// The range of least squared error, each column weighted by its inputs.
    #[default]
    Imatrix,
}

impl Default for Gptq {
    fn default() -> Gptq {
        Gptq {
            grid: GridChoice::Imatrix,
            act_order: true,
            polish: true,
            damping: 0.01,
            hessian: Hessians::Inputs,
            groups: 1,
        }
    }
}

impl Settings for Gptq {
    fn check(&self) -> Result<(), Wrong> {
        within("damping", self.damping, 0.0..=1.0)?;
        guided::check(self.hessian, self.groups)
    }
}

impl Solver for Gptq {
    fn needs(&self) -> Needs {
        Needs::Hessian
    }

    fn groups(&self) -> Option<usize> {
        (self.hessian == Hessians::Guided).then_some(self.groups as usize)
    }

    fn prepare(&self, stats: &InputStats) -> Result<Prepared, BadStats> {
        let feedback = Feedback::new(stats, self.act_order, self.damping)?;
        let (importance, target) = (stats.mean_square.clone(), Target::new(stats));
        Ok(Prepared { importance, feedback: Some(feedback), curvature: None, target })
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
        let grids = self.grids(rows, scheme, shape, input);
        match input.and_then(|it| it.feedback.as_ref()) {
            Some(feedback) => {
                let plain = match self.grid {
                    GridChoice::Rtn => None,
                    _ => Some(of_blocks(rows, (scheme, shape), None, |_, it| {
                        grid(it, scheme, shape.scale)
                    })),
                };
                let mut tile = Tile::new(feedback, shape, self.polish);
                for first in (0..n).step_by(LANES) {
                    tile.solve(first, rows, &grids, plain.as_ref(), &mut q);
                }
            }
            None => round(rows, &grids, &mut q),
        }
        q
    }
}

impl Gptq {
    /// The grid of every block, from the weights as they are.
    fn grids(
        &self,
        rows: ArrayView2<f32>,
        scheme: &Scheme,
        shape: QShape,
        input: Option<&Prepared>,
    ) -> Grids {
        let importance = match self.grid {
            GridChoice::Imatrix => input.map(|it| &*it.importance),
            _ => None,
        };
        of_blocks(rows, (scheme, shape), importance, |group, values| {
            let start = group * shape.block;
            let weights = importance.map(|it| &it[start..start + values.len()]);
            match self.grid {
                GridChoice::Rtn => grid(values, scheme, shape.scale),
                _ => search::fit(values, weights, scheme, shape.scale),
            }
        })
    }
}
