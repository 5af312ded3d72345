//! What observers know of an activation: how its values and the ends of its samples are spread.

use super::Histogram;
use crate::{affine::Interval, exact_sum::BinnedSum, solve::BadStats};

/// The values of an activation over all samples. No order of the samples changes a bit of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeStats {
    pub histogram: Histogram,
    /// Samples that had values.
    pub samples: u64,
    lows: BinnedSum,
    highs: BinnedSum,
}

impl RangeStats {
    /// Adds the values of a sample.
    pub fn add(&mut self, values: &[f32]) -> Result<(), BadStats> {
        let Some((min, max)) = self.histogram.add(values)? else { return Ok(()) };
        self.samples += 1;
        self.lows.add(min);
        self.highs.add(max);
        Ok(())
    }

    /// Adds the samples of `other`.
    pub fn merge(&mut self, other: RangeStats) {
        self.histogram.merge(&other.histogram);
        self.samples += other.samples;
        self.lows.merge(other.lows);
        self.highs.merge(other.highs);
    }

    /// From the least value to the greatest, and zero.
    pub fn whole(&self) -> Interval {
        Interval::new(self.histogram.min(), self.histogram.max())
    }

    /// The means of the samples' least and greatest values, and zero.
    pub fn mean(&self) -> Interval {
        let mean = |it: &BinnedSum| (it.total() / self.samples.max(1) as f64) as f32;
        Interval::new(mean(&self.lows), mean(&self.highs))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples() -> impl Strategy<Value = Vec<Vec<f32>>> {
        let sample = (0usize..5, -20i32..20).prop_flat_map(|(rows, size)| {
            prop::collection::vec((-1f32..1.0).prop_map(move |it| it * 2f32.powi(size)), rows * 3)
        });
        prop::collection::vec(sample, 0..9)
    }

    fn of<'a>(samples: impl Iterator<Item = &'a Vec<f32>>) -> RangeStats {
        let mut stats = RangeStats::default();
        samples.for_each(|it| stats.add(it).unwrap());
        stats
    }

    proptest! {
        #[test]
        fn no_order_and_no_split_changes_a_bit(
            samples in samples(), split in any::<prop::sample::Index>(),
        ) {
            let whole = of(samples.iter());
            prop_assert_eq!(&of(samples.iter().rev()), &whole);
            let split = split.index(samples.len() + 1).min(samples.len());
            let mut parts = of(samples[split..].iter());
            parts.merge(of(samples[..split].iter()));
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(parts.mean(), whole.mean());
        }

        #[test]
        fn means_are_those_of_plain_sums(samples in samples()) {
            let stats = of(samples.iter());
            let some: Vec<_> = samples.iter().filter(|it| !it.is_empty()).collect();
            prop_assert_eq!(stats.samples, some.len() as u64);
            let max = |it: &&Vec<f32>| f64::from(it.iter().copied().fold(f32::MIN, f32::max));
            let mean = some.iter().map(max).sum::<f64>() / some.len().max(1) as f64;
            prop_assert!((f64::from(stats.mean().hi) - mean.max(0.0)).abs() <= 1e-6 * mean.abs());
        }
    }
}
