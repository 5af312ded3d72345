//! Looks for the grid of least squared error: which part of a block's range is worth its quantized
//! values.
//!
//! Scales are tried [`LANES`] at a time, each in a lane of its own, so that short blocks take as
//! little per value as long ones. Nothing is added across lanes: every instruction set yields the
//! same bits.

use std::{array, iter::zip};

use pulp::{Arch, Simd, WithSimd};

use super::{
    grid::{Grid, ROUND, grid, stored_scale},
    minimum,
    sums::{error, or_ones},
};
use crate::scheme::{Range, Scheme};
use onnxq_ir::tensor::{DType, ZeroPoints};

/// Scales that are tried at once.
const LANES: usize = 16;
/// Values whose sums are kept apart, so that the sums of long blocks stay exact enough.
const RUN: usize = 256;

type Lanes = [f32; LANES];

/// The grid of least weighted squared error for a block.
///
/// Never worse than [`grid`]'s. Without `weights` all values count the same; a weight is not
/// negative.
pub(super) fn fit(values: &[f32], weights: Option<&[f32]>, scheme: &Scheme, stored: DType) -> Grid {
    let weights = &*or_ones(weights, values.len());
    if scheme.zero_points == ZeroPoints::Minimum {
        return minimum::fit(values, weights, scheme, stored);
    }
    // Within superblocks scales are rounded together.
    let stored = if scheme.superblock.is_some() { DType::F32 } else { stored };
    Arch::new().dispatch(Fit { values, weights, scheme, stored })
}

/// The arguments of [`fit`], whose body is compiled once for each instruction set.
struct Fit<'a> {
    values: &'a [f32],
    weights: &'a [f32],
    scheme: &'a Scheme,
    stored: DType,
}

impl WithSimd for Fit<'_> {
    type Output = Grid;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Grid {
        best(simd, self)
    }
}

#[inline(always)]
fn best<S: Simd>(simd: S, Fit { values, weights, scheme, stored }: Fit) -> Grid {
    let plain = grid(values, scheme, stored);
    let step = plain.scale.abs();
    if !(step > 0.0 && step.is_finite() && step.recip().is_finite()) {
        return plain;
    }
    let search = Search::new(simd, values, weights, plain, scheme);
    let found = search.closer(search.widest());
    let scale = stored_scale(step * found.factor * found.sign, stored);
    let found = plain.with(scale, found.zero);
    if found.inverse() == 0.0 || !found.scale.is_finite() {
        return plain;
    }
    // `<` and not `!(>=)`: an error that overflows is no gain.
    if error(values, weights, &found) < error(values, weights, &plain) { found } else { plain }
}

/// Factors of the plain scale: from and to. Few quantized values want to be spent on the bulk of
/// the values; with many of them clipping hardly pays.
pub(super) fn factors(quantized: f32) -> (f32, f32) {
    match quantized {
        ..4.0 => (0.2, 1.3),
        ..16.0 => (0.44, 1.19),
        _ => (0.88, 1.03),
    }
}

/// What became of a factor of the plain step.
#[derive(Clone, Copy)]
struct Trial {
    zero: f32,
    sign: f32,
    /// With the scale that suits the quantized values best: that scale's factor, and the error in
    /// units of the plain step's square.
    factor: f32,
    error: f32,
}

struct Search<'a, S> {
    simd: S,
    values: &'a [f32],
    weights: &'a [f32],
    plain: Grid,
    symmetric: bool,
    /// Whether a scale may be negative.
    signed: bool,
    /// Middle of the values' range, which holds zero, in plain steps.
    center: f32,
    inverse: f32,
    /// `Σ w v²` in units of the plain step.
    energy: f32,
}

impl<'a, S: Simd> Search<'a, S> {
    #[inline(always)]
    fn new(
        simd: S,
        values: &'a [f32],
        weights: &'a [f32],
        plain: Grid,
        scheme: &Scheme,
    ) -> Search<'a, S> {
        let symmetric = scheme.zero_points == ZeroPoints::Symmetric;
        let signed = symmetric && scheme.range == Range::Full;
        let center = (plain.low + plain.high) / 2.0 - plain.zero;
        let inverse = plain.scale.abs().recip();
        let energy = energy(values, weights, inverse);
        Search { simd, values, weights, plain, symmetric, signed, center, inverse, energy }
    }

    /// The best of the scales all over the range worth trying.
    #[inline(always)]
    fn widest(&self) -> Trial {
        let (from, to) = factors(self.plain.high - self.plain.low);
        let width = (to - from) / (LANES - 1) as f32;
        let factors: Lanes = array::from_fn(|at| from + width * at as f32);
        if self.symmetric {
            let zero_points = [self.plain.zero; LANES];
            let ahead = self.scan(&factors, &zero_points, 1.0);
            return match self.signed {
                true => better(ahead, self.scan(&factors, &zero_points, -1.0)),
                false => ahead,
            };
        }
        // The range moves with its middle, and zero lies where the middle leaves it.
        let middle = (self.plain.low + self.plain.high) / 2.0;
        let zero_points =
            factors.map(|factor| self.within((middle - self.center / factor + ROUND) - ROUND));
        self.scan(&factors, &zero_points, 1.0)
    }

    /// Looks closer around the best so far, which already moved to the scale that suits it: at more
    /// scales, or at fewer with zero next to where it is. 64 instead of 32 trials would take 0.1 to 0.6 %
    /// more off the squared error of 4 bits.
    #[inline(always)]
    fn closer(&self, best: Trial) -> Trial {
        let (from, to) = factors(self.plain.high - self.plain.low);
        let width = (to - from) / (LANES * LANES / 2) as f32;
        let (factors, zero_points): (Lanes, Lanes) = match self.symmetric {
            true => {
                let first = best.factor - width * (LANES / 2) as f32;
                (array::from_fn(|it| first + width * it as f32), [best.zero; LANES])
            }
            false => {
                let first = best.factor - width * (LANES / 3 - 1) as f32;
                let factors = array::from_fn(|it| first + 2.0 * width * (it / 3) as f32);
                let beside = |it: usize| (it % 3) as f32 - 1.0;
                (factors, array::from_fn(|it| self.within(best.zero + beside(it))))
            }
        };
        better(best, self.scan(&factors, &zero_points, best.sign))
    }

    /// A zero that is a quantized value.
    #[inline(always)]
    fn within(&self, zero: f32) -> f32 {
        zero.max(self.plain.low).min(self.plain.high)
    }

    /// The best of some factors of the plain step, each with its zero.
    #[inline(always)]
    fn scan(&self, factors: &Lanes, zero_points: &Lanes, sign: f32) -> Trial {
        let inverse = factors.map(|it| self.inverse / it);
        // A negative scale turns the quantized values around.
        let (from, to) = match sign > 0.0 {
            true => (self.plain.low, self.plain.high),
            false => (-self.plain.high, -self.plain.low),
        };
        let (low, high) =
            (zero_points.map(|it| from - sign * it), zero_points.map(|it| to - sign * it));
        let bounds = [&inverse, &low, &high];
        let [mut errors, slopes] = residuals(self.simd, self.values, self.weights, bounds);
        let mut found = [0.0; LANES];
        for lane in 0..LANES {
            // With quantized values `q` fixed, `1 + D / B` more is the least-squares scale, `D` the
            // slope and `B = Σ w q²`, and it takes `D² / B` off the error.
            let (factor, slope) = (factors[lane], slopes[lane]);
            let unit = factor * factor;
            let quantized = self.energy / unit - 2.0 * slope - errors[lane];
            let gain = slope / quantized;
            found[lane] = factor + factor * gain;
            let error = (errors[lane] - slope * gain) * unit;
            errors[lane] = if found[lane] > 0.0 { error } else { f32::INFINITY };
        }
        let least = least(&errors);
        let (zero, factor) = (zero_points[least], found[least]);
        Trial { zero, sign, factor, error: errors[least] }
    }
}

/// The first lane of the least number.
#[inline(always)]
fn least(lanes: &Lanes) -> usize {
    let mut least = 0;
    for lane in 1..LANES {
        least = if lanes[lane] < lanes[least] { lane } else { least };
    }
    least
}

#[inline(always)]
fn better(one: Trial, other: Trial) -> Trial {
    if other.error < one.error { other } else { one }
}

/// Per lane `Σ w d²` and `Σ w d q`: `q` is the quantized value counted from zero, `d` what of `v /
/// step` it leaves.
#[inline(always)]
fn residuals<S: Simd>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    [inverse, low, high]: [&Lanes; 3],
) -> [Lanes; 2] {
    let [mut errors, mut slopes] = [[0.0; LANES]; 2];
    for (values, weights) in values.chunks(RUN).zip(weights.chunks(RUN)) {
        let run = zip(values, weights);
        let (inverse, inverse_rest) = S::as_simd_f32s(inverse).0.as_chunks::<2>();
        let (low, low_rest) = S::as_simd_f32s(low).0.as_chunks::<2>();
        let (high, high_rest) = S::as_simd_f32s(high).0.as_chunks::<2>();
        let (errors, errors_rest) = S::as_mut_simd_f32s(&mut errors).0.as_chunks_mut::<2>();
        let (slopes, slopes_rest) = S::as_mut_simd_f32s(&mut slopes).0.as_chunks_mut::<2>();
        for at in 0..inverse.len() {
            let bounds = [inverse[at], low[at], high[at]];
            add_residuals(simd, run.clone(), bounds, &mut errors[at], &mut slopes[at]);
        }
        // All lanes in one register.
        for at in 0..inverse_rest.len() {
            let bounds = [[inverse_rest[at]], [low_rest[at]], [high_rest[at]]];
            let sums =
                (array::from_mut(&mut errors_rest[at]), array::from_mut(&mut slopes_rest[at]));
            add_residuals(simd, run.clone(), bounds, sums.0, sums.1);
        }
    }
    [errors, slopes]
}

/// [`residuals`] of `N` registers of lanes. Two of them keep the processor busy while sums wait
/// for one another; more would not fit.
#[inline(always)]
fn add_residuals<'a, S: Simd, const N: usize>(
    simd: S,
    run: impl Iterator<Item = (&'a f32, &'a f32)>,
    [inverse, low, high]: [[S::f32s; N]; 3],
    all_errors: &mut [S::f32s; N],
    all_slopes: &mut [S::f32s; N],
) {
    let magic = simd.splat_f32s(ROUND);
    let mut errors = [simd.splat_f32s(0.0); N];
    let mut slopes = errors;
    for (value, weight) in run {
        let (value, weight) = (simd.splat_f32s(*value), simd.splat_f32s(*weight));
        for it in 0..N {
            let at = simd.mul_f32s(value, inverse[it]);
            let integer = simd.sub_f32s(simd.add_f32s(at, magic), magic);
            let integer = simd.min_f32s(simd.max_f32s(integer, low[it]), high[it]);
            let rest = simd.sub_f32s(at, integer);
            let weighted = simd.mul_f32s(weight, rest);
            errors[it] = simd.add_f32s(errors[it], simd.mul_f32s(weighted, rest));
            slopes[it] = simd.add_f32s(slopes[it], simd.mul_f32s(weighted, integer));
        }
    }
    for it in 0..N {
        all_errors[it] = simd.add_f32s(all_errors[it], errors[it]);
        all_slopes[it] = simd.add_f32s(all_slopes[it], slopes[it]);
    }
}

/// `Σ w v²`, in units of the step whose inverse it gets.
#[inline(always)]
fn energy(values: &[f32], weights: &[f32], inverse: f32) -> f32 {
    use super::sums::{LANES, padded, total};
    let mut sums = [0.0; LANES];
    let (values, value_rest) = values.as_chunks::<LANES>();
    let (weights, weight_rest) = weights.as_chunks::<LANES>();
    let rest = (padded(value_rest), padded(weight_rest));
    let whole = values.iter().zip(weights);
    for (values, weights) in whole.chain([(&rest.0, &rest.1)]) {
        for lane in 0..LANES {
            let at = values[lane] * inverse;
            sums[lane] += weights[lane] * at * at;
        }
    }
    total(sums) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scheme::Granularity, solve::laws::gaussian};

    #[test]
    fn every_instruction_set_finds_the_same_grid() {
        let values = gaussian(3000);
        let weights: Vec<f32> = values.iter().rev().map(|it| it.abs()).collect();
        for bits in [2, 4, 8] {
            for zero_points in [ZeroPoints::Symmetric, ZeroPoints::Asymmetric] {
                let granularity = Granularity::Channel;
                let scheme =
                    Scheme { bits, zero_points, granularity, range: Range::Full, superblock: None };
                for (values, weights) in values.chunks(37).zip(weights.chunks(37)) {
                    let fast = fit(values, Some(weights), &scheme, DType::F32);
                    let plain = best(
                        pulp::Scalar::new(),
                        Fit { values, weights, scheme: &scheme, stored: DType::F32 },
                    );
                    assert_eq!(fast.scale.to_bits(), plain.scale.to_bits());
                    assert_eq!(fast.zero, plain.zero);
                }
            }
        }
    }

    #[test]
    fn nothing_is_left_of_an_error_that_a_grid_can_avoid() {
        // Quantized values -8..7 times 0.5, but one value that calls for a wider range.
        let values: Vec<f32> = (-8..8).map(|it| it as f32 * 0.5).collect();
        let (zero_points, granularity) = (ZeroPoints::Symmetric, Granularity::Channel);
        let scheme =
            Scheme { bits: 4, zero_points, granularity, range: Range::Full, superblock: None };
        let mut far = values.clone();
        far.push(5.5);
        let mut weights = vec![1.0; 16];
        weights.push(0.0);
        let grid = fit(&far, Some(&weights), &scheme, DType::F32);
        assert!(error(&values, &weights[..16], &grid) < 1e-9, "{grid:?}");
    }

    #[test]
    fn knowing_which_values_count_pays() {
        let numbers = gaussian(1 << 15);
        let (values, logarithms) = numbers.split_at(1 << 14);
        let weights: Vec<f32> = logarithms.iter().map(|it| it.exp()).collect();
        // Measured: 0.76 and 0.77 of round-to-nearest's weighted squared error.
        for (zero_points, most) in [(ZeroPoints::Symmetric, 0.78), (ZeroPoints::Asymmetric, 0.79)] {
            let granularity = Granularity::Block(32);
            let scheme =
                Scheme { bits: 4, zero_points, granularity, range: Range::Full, superblock: None };
            let (mut found, mut plain) = (0.0, 0.0);
            for (values, weights) in values.chunks(32).zip(weights.chunks(32)) {
                let fitted = fit(values, Some(weights), &scheme, DType::F32);
                found += error(values, weights, &fitted);
                plain += error(values, weights, &grid(values, &scheme, DType::F32));
            }
            assert!(found < plain * most, "{zero_points:?}: {}", found / plain);
        }
    }
}
