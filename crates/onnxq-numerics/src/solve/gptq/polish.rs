//! Descent after GPTQ: the scale of a block, then its quantized values, all others held.
//!
//! GPTQ never looks back: the first columns know nothing of how the last ones were rounded, and
//! scales are those of the weights as they were. Here each scale becomes the best for the quantized
//! values it has, and then each quantized value the best for all others, as in Behdin et al.,
//! "QuantEase", 2023. No step makes the damped error `Δ (H + λ I) Δᵀ` larger.

use ndarray::{Array2, ArrayView2, linalg::general_mat_mul, s};
use pulp::Arch;

use crate::solve::lanes::{LANES, LaneGrid, Lanes, lanes, lanes_mut};
use onnxq_ir::tensor::{QShape, ZeroPoints};

/// Passes over all blocks. More gain nothing that shows on other data.
const SWEEPS: usize = 3;

/// The state of a tile of rows. Columns are in the order of the model.
pub(in crate::solve) struct Polish<'a> {
    hessian: &'a Array2<f32>,
    shape: QShape,
    /// `w`, `[k, LANES]`.
    pub weights: Vec<Lanes>,
    /// `Δ = w − ŵ`, `[k, LANES]`.
    pub delta: Array2<f32>,
    block: Block,
}

/// What is known of the block at hand; each `[block, LANES]`.
struct Block {
    /// `H Δ`.
    gradient: Array2<f32>,
    /// Quantized values counted from zero, and what the Hessian of the block makes of them.
    units: Array2<f32>,
    image: Array2<f32>,
}

impl<'a> Polish<'a> {
    pub(in crate::solve) fn new(hessian: &'a Array2<f32>, shape: QShape) -> Polish<'a> {
        let array = || Array2::zeros((shape.block.min(shape.k), LANES));
        Polish {
            hessian,
            shape,
            weights: vec![[0.0; LANES]; shape.k],
            delta: Array2::zeros((shape.k, LANES)),
            block: Block { gradient: array(), units: array(), image: array() },
        }
    }

    /// Descends from the quantized values `[k]` and the grids of the blocks, which `delta` goes
    /// with.
    pub(in crate::solve) fn descend(
        &mut self,
        quantized: &mut [Lanes<u8>],
        grids: &mut [LaneGrid],
    ) {
        let (arch, size) = (Arch::new(), self.shape.block);
        for _ in 0..SWEEPS {
            let blocks = grids.iter_mut().zip(quantized.chunks_mut(size));
            for (at, (grid, quantized)) in blocks.enumerate() {
                let range = at * size..at * size + quantized.len();
                let rows = self.hessian.slice(s![range.clone(), ..]);
                let mut gradient = self.block.gradient.slice_mut(s![..quantized.len(), ..]);
                general_mat_mul(1.0, &rows, &self.delta, 0.0, &mut gradient);
                let own = rows.slice(s![.., range.clone()]);
                let delta = &mut all_mut(&mut self.delta)[range.clone()];
                let (weights, block) = (&self.weights[range], &mut self.block);
                arch.dispatch(
                    #[inline(always)]
                    || {
                        block.rescale(own, quantized, grid, delta, self.shape);
                        if self.shape.zero_points == ZeroPoints::Minimum {
                            block.shift(own, grid, delta, self.shape);
                        }
                        block.round(own, quantized, grid, delta, weights);
                    },
                );
            }
        }
    }
}

impl Block {
    /// Gives the block the scale that suits its quantized values best.
    #[inline(always)]
    fn rescale(
        &mut self,
        own: ArrayView2<f32>,
        quantized: &[Lanes<u8>],
        grid: &mut LaneGrid,
        delta: &mut [Lanes],
        shape: QShape,
    ) {
        let size = quantized.len();
        // A minimum stays where it is.
        let is_shifted = shape.zero_points == ZeroPoints::Minimum;
        let base = if is_shifted { [0.0; LANES] } else { grid.zero };
        for (units, quantized) in all_mut(&mut self.units).iter_mut().zip(quantized) {
            (0..LANES).for_each(|it| units[it] = f32::from(quantized[it]) - base[it]);
        }
        let units = self.units.slice(s![..size, ..]);
        general_mat_mul(1.0, &own, &units, 0.0, &mut self.image.slice_mut(s![..size, ..]));
        let (units, image) = (all(&self.units), all(&self.image));
        let gradient = all_mut(&mut self.gradient);
        let (mut slope, mut curve) = ([0.0; LANES], [0.0; LANES]);
        for at in 0..size {
            for it in 0..LANES {
                slope[it] += units[at][it] * gradient[at][it];
                curve[it] += units[at][it] * image[at][it];
            }
        }
        let mut change = [0.0; LANES];
        for it in 0..LANES {
            let old = grid.scale[it];
            let new = grid.stored_scale(it, old + slope[it] / curve[it], shape);
            let step = new - old;
            let gain = step * (2.0 * slope[it] - step * curve[it]);
            // Comparisons that fail for what is no number, too.
            if gain > 0.0 && new * old > 0.0 && new.recip().is_finite() {
                (grid.scale[it], grid.inverse[it], change[it]) = (new, new.recip(), step);
                if is_shifted {
                    grid.zero[it] *= old / new;
                }
            }
        }
        for at in 0..size {
            for it in 0..LANES {
                delta[at][it] -= change[it] * units[at][it];
                gradient[at][it] -= change[it] * image[at][it];
            }
        }
    }

    /// Gives the block the minimum that suits its quantized values best.
    #[inline(always)]
    fn shift(
        &mut self,
        own: ArrayView2<f32>,
        grid: &mut LaneGrid,
        delta: &mut [Lanes],
        shape: QShape,
    ) {
        // What a shift of all values by one does to the gradient is the same for every row.
        let image: Vec<f32> = own.outer_iter().map(|it| it.iter().sum()).collect();
        let curve: f32 = image.iter().sum();
        let gradient = all_mut(&mut self.gradient);
        let mut slope = [0.0; LANES];
        for gradient in &gradient[..delta.len()] {
            (0..LANES).for_each(|it| slope[it] += gradient[it]);
        }
        let mut change = [0.0; LANES];
        for it in 0..LANES {
            let old = -(grid.zero[it] * grid.scale[it]);
            let new = grid.stored_minimum(it, old + slope[it] / curve, shape);
            let step = new - old;
            if grid.inverse[it] != 0.0 && step * (2.0 * slope[it] - step * curve) > 0.0 {
                (grid.zero[it], change[it]) = (-new * grid.inverse[it], step);
            }
        }
        for (at, image) in image.iter().enumerate() {
            for it in 0..LANES {
                delta[at][it] -= change[it];
                gradient[at][it] -= change[it] * image;
            }
        }
    }

    /// Makes each quantized value in turn the best, given all others.
    #[inline(always)]
    fn round(
        &mut self,
        own: ArrayView2<f32>,
        quantized: &mut [Lanes<u8>],
        grid: &LaneGrid,
        delta: &mut [Lanes],
        weights: &[Lanes],
    ) {
        let gradient = all_mut(&mut self.gradient);
        for at in 0..quantized.len() {
            let links = own.row(at).to_slice().expect("rows are contiguous");
            let inverse = links[at].recip();
            let mut wish = [0.0; LANES];
            for it in 0..LANES {
                wish[it] = weights[at][it] - delta[at][it] + gradient[at][it] * inverse;
            }
            let back = grid.round(&wish, &mut quantized[at]);
            let mut change = [0.0; LANES];
            for it in 0..LANES {
                let new = weights[at][it] - back[it];
                (change[it], delta[at][it]) = (new - delta[at][it], new);
            }
            if change == [0.0; LANES] {
                continue;
            }
            for (link, gradient) in links.iter().zip(gradient.iter_mut()) {
                (0..LANES).for_each(|it| gradient[it] += link * change[it]);
            }
        }
    }
}

fn all(values: &Array2<f32>) -> &[Lanes] {
    lanes(values.as_slice().expect("whole rows"))
}

fn all_mut(values: &mut Array2<f32>) -> &mut [Lanes] {
    lanes_mut(values.as_slice_mut().expect("whole rows"))
}
