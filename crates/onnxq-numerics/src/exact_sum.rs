//! Sums that depend on no order: terms are rounded by themselves, then added without rounding.
//!
//! Multiples of one power of two add up exactly in f64 while they are few enough, as in Demmel &
//! Nguyen, "Fast Reproducible Floating-Point Summation", 2013. Terms of very different size go to
//! different accumulators, which are added in a fixed order at the end.

use std::collections::BTreeMap;

/// Binary digits of magnitude that share an accumulator.
pub(crate) const BIN: i32 = 8;

/// Binary digits from the largest magnitude of an accumulator down to its quantum. Up to
/// `2^(53 - DIGITS) = 2^15` samples are summed exactly.
const DIGITS: i32 = 38;

/// A sum in units of 2⁻⁴⁰: each term is rounded to them, and whole numbers add up exactly.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedSum(i128);

const UNIT: f64 = (1u64 << 40) as f64;

/// A sum of floats without rounding: those of a size share an accumulator in which they are
/// multiples of one power of two. Exact for `2^(53 - 8 - 24) = 2^21` of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BinnedSum(BTreeMap<i32, f64>);

impl FixedSum {
    /// Adds a term, which is rounded to a multiple of 2⁻⁴⁰.
    pub fn add(&mut self, term: f64) {
        self.0 += (term * UNIT).round() as i128;
    }

    /// Over so many terms; 0 if there are none.
    pub fn mean(self, terms: u64) -> f64 {
        self.0 as f64 / UNIT / terms.max(1) as f64
    }
}

impl BinnedSum {
    /// Adds a finite term.
    pub fn add(&mut self, value: f32) {
        if value != 0.0 {
            let value = f64::from(value);
            *self.0.entry(exponent(value).div_euclid(BIN)).or_default() += value;
        }
    }

    /// Adds the terms of `other`.
    pub fn merge(&mut self, other: BinnedSum) {
        other.0.into_iter().for_each(|(bin, sum)| *self.0.entry(bin).or_default() += sum);
    }

    /// The sum of all terms, rounded at the end only.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }
}

/// `floor(log2(value))` of a positive normal number.
pub(crate) fn exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// What the entries of samples in `bin`, which are below `2^(BIN (bin + 1))`, are multiples of.
pub(crate) fn quantum(bin: i32) -> f64 {
    2f64.powi(BIN * (bin + 1) - DIGITS)
}

/// Adding and subtracting this rounds to a multiple of `quantum`, ties to even.
pub(crate) fn rounder(quantum: f64) -> f64 {
    1.5 * 2f64.powi(52) * quantum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_order_changes_a_fixed_sum(terms in prop::collection::vec(-1e6f64..1e6, 0..50)) {
            let mean = |terms: &mut dyn Iterator<Item = &f64>| {
                let mut sum = FixedSum::default();
                terms.for_each(|it| sum.add(*it));
                sum.mean(50)
            };
            prop_assert_eq!(mean(&mut terms.iter()), mean(&mut terms.iter().rev()));
        }

        #[test]
        fn no_order_and_no_split_changes_a_binned_sum(
            terms in prop::collection::vec((-1f32..1.0, -20i32..20), 0..50),
            split in 0usize..50,
        ) {
            let terms: Vec<f32> = terms.into_iter().map(|(it, size)| it * 2f32.powi(size)).collect();
            let sum = |terms: &mut dyn Iterator<Item = &f32>| {
                let mut sum = BinnedSum::default();
                terms.for_each(|it| sum.add(*it));
                sum
            };
            let whole = sum(&mut terms.iter());
            prop_assert_eq!(&sum(&mut terms.iter().rev()), &whole);
            let (first, second) = terms.split_at(split.min(terms.len()));
            let mut parts = sum(&mut second.iter());
            parts.merge(sum(&mut first.iter()));
            prop_assert_eq!(parts.total(), whole.total());
        }

        #[test]
        fn rounded_terms_are_multiples_of_the_quantum(term in 0f64..1e6) {
            let quantum = quantum(exponent(term.max(1e-300)).div_euclid(BIN));
            let rounded = (term + rounder(quantum)) - rounder(quantum);
            prop_assert_eq!(rounded % quantum, 0.0);
            prop_assert!((rounded - term).abs() <= quantum / 2.0);
        }
    }
}
