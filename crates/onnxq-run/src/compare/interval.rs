//! How sure a mean over samples is: the bootstrap (Efron, 1979) over samples, which are drawn whole
//! because the tokens of one text are no independent draws. Both models are judged on the same
//! samples in every draw, so what makes a text hard cancels out of their difference.

use onnxq_report::{
    figures::{Interval, Perplexity},
    summary::finite,
};

const DRAWS: usize = 2000;
/// Additions at most: many samples need fewer draws.
const WORK: usize = 40_000_000;

/// Sums over one sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SampleSums {
    pub tokens: usize,
    pub kl: f64,
    /// Tokens whose successor is known, and their surprise in both models.
    pub known: usize,
    pub surprise: (f64, f64),
}

impl SampleSums {
    fn add(&mut self, other: &SampleSums) {
        self.tokens += other.tokens;
        self.kl += other.kl;
        self.known += other.known;
        self.surprise.0 += other.surprise.0;
        self.surprise.1 += other.surprise.1;
    }

    fn kl(&self) -> f64 {
        self.kl / self.tokens as f64
    }

    fn perplexity(&self) -> (f64, f64) {
        let of = |sum: f64| (sum / self.known as f64).exp();
        (of(self.surprise.0), of(self.surprise.1))
    }
}

/// 95 % intervals of what samples add up to.
#[derive(Default)]
pub(super) struct Intervals {
    pub kl: Option<Interval>,
    pub ratio: Option<Interval>,
    pub difference: Option<Interval>,
}

/// Nothing can be said of fewer than two samples.
pub(super) fn intervals(samples: &[SampleSums]) -> Intervals {
    if samples.len() < 2 {
        return Intervals::default();
    }
    let draws = (WORK / samples.len()).clamp(200, DRAWS);
    let mut random = Random(samples.len() as u64);
    let mut values = [(); 3].map(|()| Vec::with_capacity(draws));
    for _ in 0..draws {
        let mut sum = SampleSums::default();
        (0..samples.len()).for_each(|_| sum.add(&samples[random.below(samples.len())]));
        let (reference, candidate) = sum.perplexity();
        let draw = [sum.kl(), candidate / reference, candidate - reference];
        values.iter_mut().zip(draw).for_each(|(list, it)| list.push(it));
    }
    let [kl, ratio, difference] = values.map(middle);
    Intervals { kl, ratio, difference }
}

/// Perplexity of both models, with intervals.
pub(super) fn perplexity(samples: &[SampleSums], intervals: &Intervals) -> Option<Perplexity> {
    let mut sum = SampleSums::default();
    samples.iter().for_each(|it| sum.add(it));
    if sum.known == 0 {
        return None;
    }
    let (reference, candidate) = sum.perplexity();
    Some(Perplexity {
        reference: finite(reference),
        candidate: finite(candidate),
        // Not of the two figures, which may have overflown.
        ratio: finite(((sum.surprise.1 - sum.surprise.0) / sum.known as f64).exp()),
        difference: finite(candidate - reference),
        ratio_interval: intervals.ratio,
        difference_interval: intervals.difference,
    })
}

/// What lies between the 2.5th and the 97.5th percentile.
fn middle(mut values: Vec<f64>) -> Option<Interval> {
    if values.iter().any(|it| !it.is_finite()) {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some(Interval { low: at(0.025), high: at(0.975) })
}

/// SplitMix64 (Steele, Lea, Flood, 2014), seeded by the count of samples: the same data, the same
/// interval.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(surprise: (f64, f64), kl: f64) -> SampleSums {
        let surprise = (surprise.0 * 10.0, surprise.1 * 10.0);
        SampleSums { tokens: 10, kl: kl * 10.0, known: 10, surprise }
    }

    #[test]
    fn what_all_samples_share_is_certain() {
        // Texts of very different difficulty, each made worse by the same 1 %.
        let it = |at: u32| {
            let nats = f64::from(at % 7);
            sample((nats, nats + 1.01f64.ln()), 0.5)
        };
        let list: Vec<SampleSums> = (0..50).map(it).collect();
        let got = intervals(&list);
        let ratio = got.ratio.unwrap();
        assert!((ratio.low - 1.01).abs() < 1e-9 && (ratio.high - 1.01).abs() < 1e-9, "{ratio:?}");
        let difference = got.difference.unwrap();
        assert!(difference.low > 0.0 && difference.high > 1.2 * difference.low);
        assert!((got.kl.unwrap().high - 0.5).abs() < 1e-9);
        assert!((perplexity(&list, &got).unwrap().ratio.unwrap() - 1.01).abs() < 1e-9);
    }

    #[test]
    fn an_interval_is_as_wide_as_statistics_say() {
        // KL of 0 or 1 alike often: the standard error of the mean of 100 is 0.05.
        let list: Vec<SampleSums> =
            (0..100).map(|at| sample((1.0, 1.0), f64::from(at % 2))).collect();
        let kl = intervals(&list).kl.unwrap();
        assert!((kl.low - 0.402).abs() < 0.02 && (kl.high - 0.598).abs() < 0.02, "{kl:?}");
        assert_eq!(intervals(&list).kl, Some(kl));
    }

    #[test]
    fn one_sample_says_nothing_of_others() {
        let got = intervals(&[sample((1.0, 2.0), 0.1)]);
        assert!(got.kl.is_none() && got.ratio.is_none());
        assert!(perplexity(&[SampleSums::default()], &got).is_none());
    }
}
