//! How often values of each size occur: exact counts that no order and no division changes.

use crate::{affine::Interval, solve::BadStats};

/// Bits of the mantissa that tell bins apart: a bin is at most 1/256 of its values wide.
const MANTISSA: u32 = 8;
/// Bits of an `f32` that no bin knows.
const SHIFT: u32 = 23 - MANTISSA;
const BINS: usize = 1 << (32 - SHIFT);
/// The first bin of negative values; the bin of negative zero.
const NEGATIVE: usize = BINS / 2;
/// The first bins that hold no number, of each sign.
const FINITE: usize = 255 << MANTISSA;
/// Values of a piece that stays in the fastest cache while it is read twice.
const PIECE: usize = 2048;
const LANES: usize = 16;

/// Counts of values by sign, exponent and 8 bits of mantissa, so that no range has to be known
/// before, nothing is counted again, and merging is adding.
///
/// All counters lie in one allocation of zeros, of which the system provides the pages that are
/// used: two exponents share one. What is below 2^-134 counts as zero.
#[derive(Clone, PartialEq)]
pub struct Histogram {
    counts: Box<[u64; BINS]>,
    count: u64,
    min: f32,
    max: f32,
}

/// Values from `lo` to `hi`, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    pub lo: f64,
    pub hi: f64,
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let counts = vec![0; BINS].into_boxed_slice().try_into().expect("as many as bins");
        Histogram { counts, count: 0, min: f32::INFINITY, max: f32::NEG_INFINITY }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} values from {} to {}", self.count, self.min, self.max)
    }
}

impl Histogram {
    /// Bytes that one takes at most.
    pub const BYTES: usize = BINS * size_of::<u64>();

    /// Counts values, and says what the least and the greatest of them are; `None` without any.
    ///
    /// After an error the counts are of no use.
    pub fn add(&mut self, values: &[f32]) -> Result<Option<(f32, f32)>, BadStats> {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        for piece in values.chunks(PIECE) {
            let (least, greatest) = shape(piece)?;
            (min, max) = (min.min(least), max.max(greatest));
            for value in piece {
                self.counts[(value.to_bits() >> SHIFT) as usize] += 1;
            }
        }
        if values.is_empty() {
            return Ok(None);
        }
        // Adding zero makes a negative zero positive: which one was met first must not matter.
        (min, max) = (min + 0.0, max + 0.0);
        self.count += values.len() as u64;
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        Ok(Some((min, max)))
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts[..]).for_each(|(a, b)| {
            // Writing a zero would make the system provide the page.
            if *b != 0 {
                *a += b;
            }
        });
        self.count += other.count;
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn zeros(&self) -> u64 {
        self.counts[0] + self.counts[NEGATIVE]
    }

    /// The least value; 0 if there is none.
    pub fn min(&self) -> f32 {
        if self.count == 0 { 0.0 } else { self.min }
    }

    /// The greatest value; 0 if there is none.
    pub fn max(&self) -> f32 {
        if self.count == 0 { 0.0 } else { self.max }
    }

    /// The bins that are not empty, from the least value to the greatest.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> + '_ {
        let negative = (NEGATIVE + 1..NEGATIVE + FINITE).rev();
        let all = negative.chain(0..FINITE);
        all.filter_map(|at| match at {
            0 => self.bin(0.0, 0.0, self.zeros()),
            _ if at < NEGATIVE => self.bin(edge(at), edge(at + 1), self.counts[at]),
            _ => self.bin(-edge(at + 1 - NEGATIVE), -edge(at - NEGATIVE), self.counts[at]),
        })
    }

    fn bin(&self, lo: f64, hi: f64, count: u64) -> Option<Bin> {
        let (min, max) = (f64::from(self.min()), f64::from(self.max()));
        (count > 0).then(|| Bin { lo: lo.clamp(min, max), hi: hi.clamp(min, max), count })
    }

    /// A value that at most `count` values lie below, as great as the bins can tell.
    pub fn low(&self, count: u64) -> f32 {
        let mut below = 0;
        let found = self.bins().find(|it| {
            below += it.count;
            below > count
        });
        found.map_or(self.max(), |it| it.lo as f32)
    }

    /// A value that at most `count` values lie above, as small as the bins can tell.
    pub fn high(&self, count: u64) -> f32 {
        let mut above = 0;
        let found = self.bins().rev().find(|it| {
            above += it.count;
            above > count
        });
        found.map_or(self.min(), |it| it.hi as f32)
    }

    /// The share of values outside of an interval, those of a bin being evenly spread.
    pub fn outside(&self, interval: Interval) -> f64 {
        let (lo, hi) = (f64::from(interval.lo), f64::from(interval.hi));
        let share = |it: Bin| {
            if it.lo >= lo && it.hi <= hi {
                return 0.0;
            }
            let inside = (it.hi.min(hi) - it.lo.max(lo)).max(0.0);
            let width = it.hi - it.lo;
            let inside = if width > 0.0 { inside / width } else { 0.0 };
            it.count as f64 * (1.0 - inside)
        };
        self.bins().map(share).sum::<f64>() / self.count.max(1) as f64
    }
}

/// Where bin `at` of the positive values begins.
fn edge(at: usize) -> f64 {
    match at {
        FINITE => f64::from(f32::MAX),
        _ => f64::from(f32::from_bits((at as u32) << SHIFT)),
    }
}

/// The least and the greatest of some values, none of which may be infinite or no number.
fn shape(values: &[f32]) -> Result<(f32, f32), BadStats> {
    let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    // 0 for a number; otherwise not a number.
    let mut wrong = [0f32; LANES];
    let mut lanes = |values: &[f32]| {
        for (at, &value) in values.iter().enumerate() {
            min[at] = if value < min[at] { value } else { min[at] };
            max[at] = if value > max[at] { value } else { max[at] };
            wrong[at] += value * 0.0;
        }
    };
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    chunks.for_each(|it| lanes(&it[..LANES]));
    lanes(rest);
    if wrong.iter().any(|it| it.is_nan()) {
        let nan = values.iter().any(|it| it.is_nan());
        return Err(BadStats(if nan { "a value that is no number" } else { "an infinite value" }));
    }
    Ok((min.into_iter().fold(min[0], f32::min), max.into_iter().fold(max[0], f32::max)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(values).unwrap();
        histogram
    }

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let value = (-1f32..1.0, -140i32..120).prop_map(|(it, size)| it * 2f32.powi(size));
        prop::collection::vec(prop_oneof![9 => value, 1 => Just(0.0), 1 => Just(-0.0)], 1..200)
    }

    /// What a value is counted as: below 2^-134 no bin tells it from zero.
    fn counted_as(value: f32) -> f32 {
        if f64::from(value).abs() < 2f64.powi(-134) { 0.0 } else { value }
    }

    /// How many values lie below and above the ends that cut `cut` of them.
    fn tails(histogram: &Histogram, values: &[f32], cut: u64) -> [u64; 2] {
        let (low, high) = (histogram.low(cut), histogram.high(cut));
        let many = |outside: &dyn Fn(f32) -> bool| {
            values.iter().filter(|it| outside(counted_as(**it))).count() as u64
        };
        [many(&|it| it < low), many(&|it| it > high)]
    }

    proptest! {
        #[test]
        fn no_order_and_no_split_changes_a_count(
            values in values(), split in any::<prop::sample::Index>(),
        ) {
            let split = split.index(values.len());
            let mut merged = of(&values[split..]);
            merged.merge(&of(&values[..split]));
            prop_assert!(merged == of(&values));
            let backwards: Vec<f32> = values.iter().rev().copied().collect();
            prop_assert!(of(&backwards) == merged);
            prop_assert_eq!(merged.min().to_bits(), of(&backwards).min().to_bits());
        }

        #[test]
        fn every_value_is_in_one_bin(values in values()) {
            let histogram = of(&values);
            let bins: Vec<Bin> = histogram.bins().collect();
            prop_assert!(bins.windows(2).all(|it| it[0].hi <= it[1].lo));
            prop_assert_eq!(bins.iter().map(|it| it.count).sum::<u64>(), values.len() as u64);
            for &value in &values {
                let value = f64::from(counted_as(value));
                prop_assert!(bins.iter().any(|it| it.lo <= value && value <= it.hi));
            }
            let narrow = |it: &Bin| {
                let size = it.lo.abs().max(it.hi.abs());
                it.hi - it.lo <= (size / 256.0).max(2f64.powi(-134))
            };
            prop_assert!(bins.iter().all(narrow));
            let least = values.iter().copied().fold(f32::INFINITY, f32::min);
            prop_assert_eq!(histogram.min(), least);
        }

        #[test]
        fn tails_hold_no_more_than_asked(values in values(), cut in 0u64..50) {
            let histogram = of(&values);
            prop_assert!(tails(&histogram, &values, cut).into_iter().all(|it| it <= cut));
        }
    }

    #[test]
    fn tails_of_the_least_sizes_are_told_from_zero() {
        let values = [0.0, -8.0607e-41, -4e-41];
        assert_eq!(tails(&of(&values), &values, 2), [1, 2]);
        assert_eq!(tails(&of(&values), &values, 0), [0, 0]);
    }

    #[test]
    fn shares_outside_are_counted() {
        let histogram = of(&[-4.0, -1.0, 0.0, 0.0, 1.0, 2.0, 4.0, 4.0]);
        let outside = |lo, hi| histogram.outside(Interval { lo, hi });
        assert_eq!(outside(-4.0, 4.0), 0.0);
        assert_eq!(outside(-3.0, 4.0), 0.125);
        assert_eq!(outside(0.0, 3.0), 0.5);
        assert_eq!(Histogram::default().outside(Interval::default()), 0.0);
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        for at in [0, 5, 2047, 2048, 2060] {
            for (bad, why) in
                [(f32::NAN, "a value that is no number"), (f32::NEG_INFINITY, "an infinite value")]
            {
                let mut values = vec![1.0; 2061];
                values[at] = bad;
                assert_eq!(Histogram::default().add(&values), Err(BadStats(why)));
            }
        }
        assert_eq!(Histogram::default().add(&[f32::MAX, -0.0]), Ok(Some((0.0, f32::MAX))));
    }
}
