//! The grid of a block: its scale, its zero, and how values are rounded to it.

use half::f16;

use crate::scheme::{Range, Scheme};
use onnxq_ir::tensor::{DType, ZeroPoints};

/// Adding 1.5 · 2^23 leaves no bits below one: the sum is rounded, ties to even.
pub(super) const ROUND: f32 = 12_582_912.0;

/// The largest float below one half.
pub(super) const BELOW_HALF: f32 = 0.499_999_97;

/// Adding 2^23 to a number from 0 to 2^22 leaves no bits below one either.
const WHOLE: f32 = 8_388_608.0;

/// The integer part of a number from 0 to 2^22. A conversion to an integer would check the range.
#[inline(always)]
fn whole(at: f32) -> f32 {
    let rounded = (at + WHOLE) - WHOLE;
    if rounded > at { rounded - 1.0 } else { rounded }
}

/// A block's scale and zero, and which quantized values it may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub scale: f32,
    pub zero: f32,
    pub low: f32,
    pub high: f32,
    /// Only [`grid`] makes grids from nothing, so all that belong to one scheme agree.
    ties: Ties,
}

/// How a value halfway between two quantized values is rounded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Ties {
    /// Up, as `trunc(x + 0.49999997)` of a positive `x`: MatMulNBits' quantizer.
    Up,
    Even,
}

/// The grid of round-to-nearest: it spans the block's own range.
#[inline(always)]
pub(super) fn grid(values: &[f32], scheme: &Scheme, stored: DType) -> Grid {
    let (low, high) = extremes(values);
    let middle = (1u32 << (scheme.bits - 1)) as f32;
    let grid = match (scheme.zero_points, scheme.range) {
        (ZeroPoints::Symmetric, Range::Full) => {
            let extreme = if high.abs() > low.abs() { high } else { low };
            let (scale, ties) = (extreme / -middle, Ties::Up);
            Grid { scale, zero: middle, low: 0.0, high: scheme.max_quantized(), ties }
        }
        (ZeroPoints::Symmetric, range) => {
            let reach = if range == Range::Narrow { middle - 1.0 } else { middle / 2.0 };
            let scale = high.max(-low) / reach;
            let (low, high) = (middle - reach, middle + reach);
            Grid { scale, zero: middle, low, high, ties: Ties::Even }
        }
        (ZeroPoints::Asymmetric, range) => {
            let highest = if range == Range::Reduced { middle } else { scheme.max_quantized() };
            let (low, high) = (low.min(0.0), high.max(0.0));
            // Halves first: the difference of two large floats may not be one.
            let scale = (high / highest) - (low / highest);
            let exact = (high - low) / highest;
            let scale = if exact.is_finite() { exact } else { scale };
            Grid { scale, zero: 0.0, low: 0.0, high: highest, ties: Ties::Up }
        }
        (ZeroPoints::Minimum, _) => return between_ends((low, high), scheme, stored),
    };
    finish(grid, low, scheme, stored)
}

/// Places zero, by the exact scale, and rounds the scale to its stored type before anything is
/// divided by it.
#[inline(always)]
fn finish(mut grid: Grid, low: f32, scheme: &Scheme, stored: DType) -> Grid {
    if scheme.zero_points == ZeroPoints::Asymmetric && grid.scale != 0.0 {
        // Half away from zero, and clamped: a block that does not reach zero still holds it.
        let zero = (-low.min(0.0) / grid.scale).round();
        grid.zero = zero.clamp(grid.low, grid.high);
    }
    // Within superblocks scales are rounded together.
    if scheme.superblock.is_none() {
        grid.scale = stored_scale(grid.scale, stored);
    }
    grid
}

/// The grid from the lowest to the highest value.
#[inline(always)]
fn between_ends((low, high): (f32, f32), scheme: &Scheme, stored: DType) -> Grid {
    // Superblocks store how far minimums are below zero.
    let low = if scheme.superblock.is_some() { low.min(0.0) } else { low };
    let high = if scheme.superblock.is_some() && high <= low { 0.0 } else { high };
    let grid = minimum_grid(scheme);
    if high > low {
        return grid.shifted((high - low) / grid.high, low, scheme, stored);
    }
    // All values are the same, which then is the scale; a scale of zero would lose it.
    grid.with(stored_scale(low, stored), 0.0)
}

/// A grid of a scheme with minimums, without scale.
#[inline(always)]
pub(super) fn minimum_grid(scheme: &Scheme) -> Grid {
    let high = scheme.max_quantized();
    Grid { scale: 0.0, zero: 0.0, low: 0.0, high, ties: Ties::Up }
}

/// A scale as it comes back from where it is stored.
#[inline(always)]
pub(super) fn stored_scale(scale: f32, stored: DType) -> f32 {
    if stored == DType::F16 { f16::from_f32(scale).to_f32() } else { scale }
}

impl Grid {
    /// The same quantized values, with another meaning.
    #[inline(always)]
    pub(super) fn with(self, scale: f32, zero: f32) -> Grid {
        Grid { scale, zero, ..self }
    }

    /// The same quantized values, of which the lowest stands for `minimum`.
    #[inline(always)]
    pub(super) fn shifted(self, scale: f32, minimum: f32, scheme: &Scheme, stored: DType) -> Grid {
        let (scale, minimum) = match scheme.superblock {
            Some(_) => (scale, minimum),
            None => (stored_scale(scale, stored), stored_scale(minimum, stored)),
        };
        self.with(scale, if scale == 0.0 { 0.0 } else { -minimum / scale })
    }

    /// What the integer 0 stands for, where that is what is stored.
    #[inline(always)]
    pub(super) fn minimum(&self) -> f32 {
        -(self.zero * self.scale)
    }

    #[inline(always)]
    pub(super) fn ties(&self) -> Ties {
        self.ties
    }

    /// The same grid, where the compiler is to know how ties are rounded.
    #[inline(always)]
    pub(super) fn tied(self, ties: Ties) -> Grid {
        Grid { ties, ..self }
    }

    #[inline(always)]
    pub(super) fn round(&self, values: &[f32], quantized: &mut [u8]) {
        let inverse = self.inverse();
        // Chosen once: the compiler makes no vectors of a loop that asks again for each value.
        match self.ties {
            Ties::Up => self.tied(Ties::Up).round_all(values, quantized, inverse),
            Ties::Even => self.tied(Ties::Even).round_all(values, quantized, inverse),
        }
    }

    #[inline(always)]
    fn round_all(&self, values: &[f32], quantized: &mut [u8], inverse: f32) {
        for (integer, value) in quantized.iter_mut().zip(values) {
            // The sum's lowest bits are the quantized value.
            *integer = (self.round_by(*value, inverse) + WHOLE).to_bits() as u8;
        }
    }

    /// What a quantized value stands for.
    #[inline(always)]
    pub(super) fn value(&self, integer: f32) -> f32 {
        (integer - self.zero) * self.scale
    }

    /// One over the scale. A scale so small that no float is its inverse is zero for all that
    /// follows, and so is the inverse of zero: every value gets the quantized value of zero.
    #[inline(always)]
    pub(super) fn inverse(&self) -> f32 {
        let inverse = self.scale.recip();
        if inverse.is_finite() { inverse } else { 0.0 }
    }

    /// The quantized value of a value, as a number; `inverse` is the grid's own, so that loops
    /// divide once.
    #[inline(always)]
    pub(super) fn round_by(&self, value: f32, inverse: f32) -> f32 {
        match self.ties {
            Ties::Up => whole(self.within(value * inverse + self.zero) + BELOW_HALF),
            Ties::Even => self.within((value * inverse + ROUND) - ROUND + self.zero),
        }
    }

    /// Comparisons that are one instruction each, unlike those of `clamp`.
    #[inline(always)]
    fn within(&self, at: f32) -> f32 {
        let at = if at < self.low { self.low } else { at };
        if at > self.high { self.high } else { at }
    }
}

#[inline(always)]
fn extremes(values: &[f32]) -> (f32, f32) {
    // Eight lanes, so that the compiler keeps them in a register.
    let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..8 {
            low[lane] = if chunk[lane] < low[lane] { chunk[lane] } else { low[lane] };
            high[lane] = if chunk[lane] > high[lane] { chunk[lane] } else { high[lane] };
        }
    }
    let all_low = low.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    let all_high = high.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (all_low, all_high)
}
