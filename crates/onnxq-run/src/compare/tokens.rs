//! Distributions of both models, token by token (or sample by sample, for classes).

use super::{
    interval::{SampleSums, intervals, perplexity},
    metrics::{Errors, Token},
};
use onnxq_report::{
    figures::{Histogram, OutputMetrics, PositionBin, TokenError},
    summary::{Summary, finite},
};

/// How many of the worst are named.
pub(super) const WORST: usize = 10;
/// Tokens before a bad one that show where it is.
pub(super) const CONTEXT: usize = 24;
/// Bins along a sequence at most.
const BINS: usize = 16;

/// Everything that is kept of the tokens.
#[derive(Default)]
pub(super) struct Tokens {
    kl: Vec<f32>,
    same_top: usize,
    in_top5: usize,
    samples: Vec<SampleSums>,
    worst: Vec<TokenError>,
    pub places: Places,
}

impl Tokens {
    /// Begins a sample.
    pub(super) fn next_sample(&mut self) {
        self.samples.push(SampleSums::default());
    }

    pub(super) fn add(&mut self, token: &Token) {
        self.kl.push(token.kl as f32);
        self.same_top += usize::from(token.same_top());
        self.in_top5 += usize::from(token.in_top5);
        let Some(sums) = self.samples.last_mut() else { return };
        sums.tokens += 1;
        sums.kl += token.kl;
        if let Some((reference, candidate)) = token.surprise {
            sums.known += 1;
            sums.surprise.0 += reference;
            sums.surprise.1 += candidate;
        }
    }

    /// Whether a token would be among the worst; the first of equals stays.
    pub(super) fn is_bad(&self, kl: f64) -> bool {
        kl > 0.0 && (self.worst.len() < WORST || self.worst.last().is_some_and(|it| kl > it.kl))
    }

    pub(super) fn add_worst(&mut self, token: TokenError) {
        let at = self.worst.partition_point(|it| it.kl >= token.kl);
        self.worst.insert(at, token);
        self.worst.truncate(WORST);
    }

    pub(super) fn finish(self, into: &mut OutputMetrics) {
        let count = self.kl.len();
        if count == 0 {
            return;
        }
        let intervals = intervals(&self.samples);
        into.kl = Summary::of(&self.kl);
        into.kl_interval = intervals.kl;
        into.top1 = finite(self.same_top as f64 / count as f64);
        into.top5 = finite(self.in_top5 as f64 / count as f64);
        into.perplexity = perplexity(&self.samples, &intervals);
        into.kl_histogram = Some(histogram(&self.kl));
        into.by_position = self.places.bins();
        into.worst_tokens = self.worst;
    }
}

/// Eight bins per decade from 1e-8 to 100 nats: a divergence spans decades, and most of its values
/// lie in one or two of them.
fn histogram(values: &[f32]) -> Histogram {
    let edges: Vec<f64> = (0..=80).map(|it| 10f64.powf(f64::from(it) / 8.0 - 8.0)).collect();
    let mut counts = vec![0u64; edges.len() - 1];
    for it in values {
        let at = edges.partition_point(|edge| *edge <= f64::from(*it));
        counts[at.saturating_sub(1).min(edges.len() - 2)] += 1;
    }
    Histogram { edges, counts }
}

/// Sums by position in the sequence.
#[derive(Default)]
pub(super) struct Places(Vec<Place>);

#[derive(Clone, Copy, Default)]
struct Place {
    tokens: usize,
    kl: f64,
    same_top: usize,
    has_top: bool,
    signal: f64,
    noise: f64,
}

impl Places {
    pub(super) fn add(&mut self, position: usize, token: Option<&Token>, errors: &Errors) {
        if self.0.len() <= position {
            self.0.resize(position + 1, Place::default());
        }
        let it = &mut self.0[position];
        it.tokens += 1;
        it.signal += errors.reference_square;
        it.noise += errors.error_square;
        if let Some(token) = token {
            it.has_top = true;
            it.kl += token.kl;
            it.same_top += usize::from(token.same_top());
        }
    }

    /// As many bins of equal width as there is room for; the last may be narrower.
    pub(super) fn bins(&self) -> Vec<PositionBin> {
        let width = self.0.len().div_ceil(BINS).max(1);
        let bin = |(at, places): (usize, &[Place])| {
            let sum = places.iter().fold(Place::default(), |sum, it| Place {
                tokens: sum.tokens + it.tokens,
                kl: sum.kl + it.kl,
                same_top: sum.same_top + it.same_top,
                has_top: sum.has_top || it.has_top,
                signal: sum.signal + it.signal,
                noise: sum.noise + it.noise,
            });
            let per_token = |it: f64| finite(it / sum.tokens as f64).filter(|_| sum.has_top);
            PositionBin {
                from: at * width,
                to: at * width + places.len(),
                tokens: sum.tokens,
                kl: per_token(sum.kl),
                top1: per_token(sum.same_top as f64),
                sqnr_db: finite(10.0 * (sum.signal / sum.noise).log10()),
            }
        };
        self.0.chunks(width).enumerate().map(bin).filter(|it| it.tokens > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(kl: f64) -> Token {
        Token { kl, top: (0, 1), in_top5: true, log_top: (0.0, 0.0), surprise: Some((1.0, 2.0)) }
    }

    #[test]
    fn the_worst_come_first_and_are_few() {
        let mut it = Tokens::default();
        it.next_sample();
        for at in 0..100usize {
            let kl = ((at * 37) % 100) as f64;
            it.add(&token(kl));
            if it.is_bad(kl) {
                it.add_worst(TokenError { position: at, kl, ..TokenError::default() });
            }
        }
        let mut got = OutputMetrics::default();
        it.finish(&mut got);
        let worst: Vec<f64> = got.worst_tokens.iter().map(|it| it.kl).collect();
        assert_eq!(worst, (90..100).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!((got.top1, got.top5, got.kl.unwrap().max), (Some(0.0), Some(1.0), Some(99.0)));
        assert!((got.perplexity.unwrap().ratio.unwrap() - 1f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn every_value_falls_into_a_bin() {
        let got = histogram(&[0.0, 1e-9, 1.5e-4, 2e-4, 5e3, 100.0]);
        assert_eq!(got.counts.iter().sum::<u64>(), 6);
        assert_eq!([0, 33, 34, 79].map(|at| got.counts[at]), [2, 1, 1, 2]);
        assert!((got.edges[32] - 1e-4).abs() < 1e-12);
    }

    #[test]
    fn positions_are_binned_evenly() {
        let mut it = Places::default();
        let errors = Errors { reference_square: 100.0, error_square: 1.0, ..Errors::default() };
        (0..40).for_each(|at| it.add(at, Some(&token(at as f64)), &errors));
        let bins = it.bins();
        assert_eq!((bins.len(), bins[13].from, bins[13].to), (14, 39, 40));
        assert_eq!((bins[0].kl, bins[0].sqnr_db, bins[0].top1), (Some(1.0), Some(20.0), Some(0.0)));
    }
}
