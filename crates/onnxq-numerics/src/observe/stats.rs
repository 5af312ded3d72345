//! What observers know of an activation: how its values and the ends of its samples are spread.

use std::collections::BTreeMap;

use super::Histogram;
use crate::{
    affine::Interval,
    moments::{BIN, exponent},
    solve::BadStats,
};

/// The values of an activation over all samples. No order of the samples changes a bit of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeStats {
    pub histogram: Histogram,
    /// Samples that had values.
    pub samples: u64,
    lows: Sum,
    highs: Sum,
    channels: Channels,
}

/// A sum of floats without rounding: those of a size share an accumulator in which they are
/// multiples of one power of two. Exact for `2^(53 - 8 - 24) = 2^21` of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum(BTreeMap<i32, f64>);

/// The greatest magnitude in each channel.
#[derive(Clone, Debug, Default, PartialEq)]
enum Channels {
    #[default]
    Unknown,
    Known(Vec<f32>),
    /// Samples have different channels, or an activation has none.
    None,
}

impl RangeStats {
    /// Adds a sample: values of that shape.
    pub fn add(&mut self, values: &[f32], shape: &[usize]) -> Result<(), BadStats> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(BadStats("values of another shape"));
        }
        let Some((min, max)) = self.histogram.add(values)? else { return Ok(()) };
        self.samples += 1;
        self.lows.add(min);
        self.highs.add(max);
        let channels = channels(values, shape).map_or(Channels::None, Channels::Known);
        self.channels.merge(channels);
        Ok(())
    }

    /// Adds the samples of `other`.
    pub fn merge(&mut self, other: RangeStats) {
        self.histogram.merge(&other.histogram);
        self.samples += other.samples;
        self.lows.merge(other.lows);
        self.highs.merge(other.highs);
        self.channels.merge(other.channels);
    }

    /// From the least value to the greatest, and zero.
    pub fn whole(&self) -> Interval {
        Interval::new(self.histogram.min(), self.histogram.max())
    }

    /// The means of the samples' least and greatest values, and zero.
    pub fn mean(&self) -> Interval {
        let mean = |it: &Sum| (it.total() / self.samples.max(1) as f64) as f32;
        Interval::new(mean(&self.lows), mean(&self.highs))
    }

    /// The greatest magnitude in each channel: axis 1 of images (rank 4), the last axis of
    /// others up to rank 3. `None` if samples differ in their channels.
    pub fn channel_max(&self) -> Option<&[f32]> {
        match &self.channels {
            Channels::Known(list) => Some(list),
            _ => None,
        }
    }
}

impl Sum {
    fn add(&mut self, value: f32) {
        if value != 0.0 {
            let value = f64::from(value);
            *self.0.entry(exponent(value).div_euclid(BIN)).or_default() += value;
        }
    }

    fn merge(&mut self, other: Sum) {
        other.0.into_iter().for_each(|(bin, sum)| *self.0.entry(bin).or_default() += sum);
    }

    fn total(&self) -> f64 {
        self.0.values().sum()
    }
}

impl Channels {
    fn merge(&mut self, other: Channels) {
        match (&mut *self, other) {
            (_, Channels::Unknown) => {}
            (Channels::Unknown, other) => *self = other,
            (Channels::Known(list), Channels::Known(other)) if list.len() == other.len() => {
                list.iter_mut().zip(other).for_each(|(a, b)| *a = a.max(b));
            }
            _ => *self = Channels::None,
        }
    }
}

fn channels(values: &[f32], shape: &[usize]) -> Option<Vec<f32>> {
    match *shape {
        [.., count] if shape.len() <= 3 => {
            let mut list = vec![0.0; count];
            values.chunks_exact(count).for_each(|row| largest(&mut list, row));
            Some(list)
        }
        [_, count, height, width] => {
            let mut list = vec![0.0; count];
            for (at, plane) in values.chunks_exact(height * width).enumerate() {
                let max = &mut list[at % count];
                *max = plane.iter().fold(*max, |max, it| greater(max, it.abs()));
            }
            Some(list)
        }
        _ => None,
    }
}

fn largest(list: &mut [f32], row: &[f32]) {
    list.iter_mut().zip(row).for_each(|(max, it)| *max = greater(*max, it.abs()));
}

/// `f32::max` of numbers, which is one instruction.
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
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
        samples.for_each(|it| stats.add(it, &[it.len() / 3, 3]).unwrap());
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

    #[test]
    fn channels_are_the_last_axis_or_that_of_images() {
        let mut rows = RangeStats::default();
        rows.add(&[1.0, -5.0, 2.0, 3.0], &[1, 2, 2]).unwrap();
        assert_eq!(rows.channel_max(), Some(&[2.0, 5.0][..]));
        rows.add(&[1.0, 1.0, 7.0], &[1, 1, 3]).unwrap();
        assert_eq!(rows.channel_max(), None);
        let mut images = RangeStats::default();
        images.add(&[1.0, -5.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0], &[2, 2, 1, 2]).unwrap();
        assert_eq!(images.channel_max(), Some(&[6.0, 3.0][..]));
        assert!(images.add(&[1.0], &[2]).is_err());
    }
}
