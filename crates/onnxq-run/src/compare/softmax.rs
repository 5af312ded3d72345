//! Two rows of logits as distributions, in one pass over both: this is where comparing a language
//! model spends its time, so it is vectorized. Sums are kept in eight lanes, whatever the CPU has,
//! and are therefore the same everywhere.

use pulp::Arch;

const LANES: usize = 8;

/// Sums over two rows of the same length, relative to each row's maximum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// ln Σ exp.
    pub log_sum: (f64, f64),
    /// KL(reference ‖ candidate) in nats; never negative.
    pub kl: f64,
    /// Index of the first largest value.
    pub top: (usize, usize),
    /// How many values of the candidate come before the reference's top.
    pub place: usize,
}

impl Pair {
    /// Both rows must be finite and not empty.
    pub(super) fn of(arch: Arch, reference: &[f32], candidate: &[f32]) -> Pair {
        arch.dispatch(|| pair(reference, candidate))
    }
}

#[inline(always)]
fn pair(reference: &[f32], candidate: &[f32]) -> Pair {
    let max = (max(reference), max(candidate));
    let sums = sums(reference, candidate, max);
    let log_sum = (f64::from(max.0) + sums[0].ln(), f64::from(max.1) + sums[1].ln());
    // Σ p (r - c) with r and c normalized: the constants leave the sum.
    let kl = sums[2] / sums[0] + (f64::from(max.0) - f64::from(max.1)) - (log_sum.0 - log_sum.1);
    let top = (position(reference, max.0), position(candidate, max.1));
    // Rounding can leave a hair below zero.
    Pair { log_sum, kl: kl.max(0.0), top, place: place(candidate, top.0) }
}

/// Σ exp(r - max), Σ exp(c - max), and Σ exp(r - max) · ((r - max) - (c - max)).
#[inline(always)]
fn sums(reference: &[f32], candidate: &[f32], max: (f32, f32)) -> [f64; 3] {
    let mut lanes = [[0.0f64; LANES]; 3];
    let (mut r, mut c) = (reference.chunks_exact(LANES), candidate.chunks_exact(LANES));
    let max = (f64::from(max.0), f64::from(max.1));
    for (r, c) in (&mut r).zip(&mut c) {
        let (r, c): (&[f32; LANES], &[f32; LANES]) =
            (r.try_into().expect("of that length"), c.try_into().expect("of that length"));
        for at in 0..LANES {
            add(&mut lanes, at, f64::from(r[at]) - max.0, f64::from(c[at]) - max.1);
        }
    }
    for (at, (r, c)) in r.remainder().iter().zip(c.remainder()).enumerate() {
        add(&mut lanes, at, f64::from(*r) - max.0, f64::from(*c) - max.1);
    }
    lanes.map(|it| it.iter().sum())
}

#[inline(always)]
fn add(lanes: &mut [[f64; LANES]; 3], at: usize, r: f64, c: f64) {
    let e = exp(r);
    lanes[0][at] += e;
    lanes[1][at] += exp(c);
    lanes[2][at] += e * (r - c);
}

/// exp of a number that is not positive, to 1e-15 relative: argument reduction by ln 2 in two parts
/// (Cody and Waite, 1980) and the Taylor series to the 12th power.
#[inline(always)]
fn exp(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52: adding it rounds to a whole number
    const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const SERIES: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    // Below, the result would be no normal number; what is so small does not count.
    let x = x.max(-700.0);
    let shifted = x * std::f64::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = SERIES[0];
    for it in &SERIES[1..] {
        sum = sum * r + it;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    sum * power
}

#[inline(always)]
fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane = if *it > *lane { *it } else { *lane };
        }
    }
    let rest = chunks.remainder().iter().copied();
    lanes.into_iter().chain(rest).fold(f32::NEG_INFINITY, f32::max)
}

/// The first place of a value.
#[inline(always)]
fn position(row: &[f32], value: f32) -> usize {
    row.iter().position(|it| *it == value).unwrap_or(0)
}

/// How many values are larger than that at `at`, or as large and before it.
#[inline(always)]
fn place(row: &[f32], at: usize) -> usize {
    let value = row[at];
    let before = row[..at].iter().map(|it| usize::from(*it >= value)).sum::<usize>();
    before + row[at + 1..].iter().map(|it| usize::from(*it > value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    use super::*;

    fn log_softmax(row: &[f32]) -> Vec<f64> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|it| f64::from(*it - max).exp()).sum();
        row.iter().map(|it| f64::from(*it) - f64::from(max) - sum.ln()).collect()
    }

    proptest! {
        #[test]
        fn the_exponential_is_exact_to_15_digits(x in -699.0f64..0.0) {
            assert_relative_eq!(exp(x), x.exp(), max_relative = 2e-15);
        }

        #[test]
        fn one_pass_says_what_the_definition_says(rows in (1usize..70).prop_flat_map(|len| {
            let row = || proptest::collection::vec(-30f32..30.0, len);
            (row(), row())
        })) {
            let (r, c) = rows;
            let got = Pair::of(Arch::new(), &r, &c);
            let (p, q) = (log_softmax(&r), log_softmax(&c));
            let kl: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
            prop_assert!((got.kl - kl.max(0.0)).abs() < 1e-6 * (1.0 + kl.abs()), "{} {kl}", got.kl);
            let scalar = pair(&r, &c);
            prop_assert_eq!(got.kl, scalar.kl);
            prop_assert_eq!(got.log_sum, scalar.log_sum);
        }
    }

    #[test]
    fn places_count_ties_from_the_left() {
        let row = [1.0, 3.0, 3.0, 2.0];
        assert_eq!([0, 1, 2, 3].map(|at| place(&row, at)), [3, 0, 1, 2]);
        let got = pair(&[0.0, 0.0, 5.0], &[1.0, 7.0, 1.0]);
        assert_eq!((got.top, got.place), ((2, 1), 2));
    }

    #[test]
    fn equal_rows_have_no_divergence() {
        let row: Vec<f32> = (0..37).map(|it| (it as f32 * 0.7).sin() * 20.0).collect();
        let got = pair(&row, &row);
        assert_eq!((got.kl, got.place, got.log_sum.0), (0.0, 0, got.log_sum.1));
        assert_eq!(exp(-1e9), exp(-700.0));
    }
}
