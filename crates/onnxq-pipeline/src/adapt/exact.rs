//! Sums that depend on no order.

/// A sum in units of 2⁻⁴⁰: each term is rounded by itself, and whole numbers add up exactly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exact(i128);

const UNIT: f64 = (1u64 << 40) as f64;

impl Exact {
    pub fn add(&mut self, term: f64) {
        self.0 += (term * UNIT).round() as i128;
    }

    /// Over so many terms; 0 if there are none.
    pub fn mean(self, terms: u64) -> f64 {
        self.0 as f64 / UNIT / terms.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_order_changes_a_sum(terms in prop::collection::vec(-1e6f64..1e6, 0..50)) {
            let mean = |terms: &mut dyn Iterator<Item = &f64>| {
                let mut sum = Exact::default();
                terms.for_each(|it| sum.add(*it));
                sum.mean(50)
            };
            prop_assert_eq!(mean(&mut terms.iter()), mean(&mut terms.iter().rev()));
        }
    }
}
