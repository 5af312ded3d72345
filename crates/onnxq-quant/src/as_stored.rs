//! Integers that a file has already: a scheme that can hold them takes them as they are.

use std::{ops::Range, sync::Arc};

use ndarray::Array2;

use super::{
    ops::{Site, rows},
    plan::SitePlan,
    sources,
};
use onnxq_ir::{
    Model,
    tensor::{DType, Origin, QMatrix, QShape, QSource, TensorError, ZeroPoints},
};
use onnxq_numerics::scheme::{self, Granularity, Scales, Scheme};

#[cfg(test)]
mod tests;

/// What the solver of a weight is called that is not solved.
pub const NAME: &str = "as_stored";

/// What the file has of a site's weight, if it has integers.
pub fn origin(m: &Model, site: &Site) -> Option<Origin> {
    rows(site, m.constant(site.weight).ok()?).origin()
}

/// The integers of the file for a site, if its scheme holds them exactly.
pub fn source(m: &Model, plan: &SitePlan) -> Option<Arc<dyn QSource>> {
    let base = origin(m, &plan.site)?.integers?;
    let to = plan.scheme.shape(base.shape().n, base.shape().k, sources::scale(m, plan));
    if !holds(&plan.scheme, to.scale, base.shape()) {
        return None;
    }
    let name = m.value(plan.site.weight).name.to_string();
    Some(Arc::new(AsStored { name, base, to }))
}

/// Whether a scheme with such scales holds integers of a grid with their scales as they are.
pub fn holds(scheme: &Scheme, scale: DType, grid: QShape) -> bool {
    // Other ranges promise positive scales, and integers that are as far on both sides.
    let is_full = scheme.range == scheme::Range::Full;
    // A zero point of its own is as far from an integer as one bit more reaches from the middle.
    let zeros = match (grid.zero_points, scheme.zero_points) {
        (ZeroPoints::Asymmetric, ZeroPoints::Symmetric) => scheme.bits > grid.bits,
        _ => scheme.bits >= grid.bits,
    };
    let block = match scheme.granularity {
        Granularity::Channel => grid.k,
        Granularity::Block(it) => it,
    };
    let fits = grid.block >= grid.k || block > 0 && grid.block.is_multiple_of(block);
    scheme.is_plain() && is_full && zeros && fits && (scale == grid.scale || scale == DType::F32)
}

/// The scheme of a grid, as formats in blocks have it: per channel is a block that divides the row,
/// each with the scale of all.
pub fn scheme_of(grid: QShape) -> (Scheme, Scales) {
    let powers = if grid.bits == 2 { 5..=7 } else { 4..=9 };
    let block = powers.rev().map(|it| 1 << it).find(|it| grid.block.is_multiple_of(*it));
    let block = match block {
        Some(it) => it,
        // The last block of a row may be short.
        None if grid.block >= grid.k => 32,
        None => grid.block,
    };
    let scales = if grid.scale == DType::F16 { Scales::Float16 } else { Scales::Float };
    let scheme = Scheme {
        bits: grid.bits,
        zero_points: grid.zero_points,
        granularity: Granularity::Block(block),
        range: scheme::Range::Full,
        superblock: None,
    };
    (scheme, scales)
}

/// Integers of a file on a grid that holds them.
struct AsStored {
    /// The weight, for errors.
    name: String,
    base: Arc<dyn QSource>,
    to: QShape,
}

impl QSource for AsStored {
    fn shape(&self) -> QShape {
        self.to
    }

    fn solve(&self, rows: Range<usize>) -> Result<QMatrix, TensorError> {
        let own = self.base.solve(rows.clone())?;
        let (from, to) = (own.shape, QShape { n: rows.len(), ..self.to });
        if let Some(at) = own.scales.iter().position(|it| !it.is_finite()) {
            let (row, block) = (rows.start + at / from.blocks(), at % from.blocks());
            let (name, column) = (self.name.clone(), block * from.block);
            return Err(TensorError::NonFinite {
                name,
                what: "a scale beyond floats",
                row,
                column,
            });
        }
        if to == (QShape { scale: to.scale, ..from }) {
            return Ok(QMatrix { shape: to, ..own });
        }
        let blocks = (to.n, to.blocks());
        let theirs = |block: usize| (block * to.block / from.block).min(from.blocks() - 1);
        let scales = Array2::from_shape_fn(blocks, |it| own.scales[(it.0, theirs(it.1))]);
        let of_block = Array2::from_shape_fn(blocks, |it| own.zero_points[(it.0, theirs(it.1))]);
        let (quantized, zero_points) = match to.zero_points {
            ZeroPoints::Asymmetric | ZeroPoints::Minimum => (own.quantized, of_block),
            ZeroPoints::Symmetric => {
                let middle = to.middle();
                let code = |(row, column): (usize, usize)| {
                    let zero = of_block[(row, column / to.block)];
                    own.quantized[(row, column)].wrapping_sub(zero).wrapping_add(middle)
                };
                (Array2::from_shape_fn((to.n, to.k), code), Array2::from_elem(blocks, middle))
            }
        };
        Ok(QMatrix::plain(to, quantized, scales, zero_points))
    }
}
