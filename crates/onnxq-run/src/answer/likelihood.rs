//! How likely a model held a token: log-probabilities of its logits, whatever was chosen by.

use super::{TokenLogprob, TopLogprob};
use crate::data::Vocabulary;

/// More alternatives of a token are not told.
pub(super) const MOST: usize = 100;

/// One row of logits as likelihoods.
pub(super) struct Likelihood<'a> {
    logits: &'a [f32],
    /// The logarithm of the sum of all.
    sum: f64,
}

impl Likelihood<'_> {
    pub(super) fn of(logits: &[f32]) -> Likelihood<'_> {
        let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|it| (f64::from(*it) - top).exp()).sum();
        Likelihood { logits, sum: top + sum.ln() }
    }

    fn logprob(&self, id: u32) -> f32 {
        let logit = self.logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        // JSON has no infinity; nothing is less likely than that.
        ((f64::from(logit) - self.sum) as f32).max(f32::MIN)
    }

    /// A token with its likelihood and the `count` most likely ones.
    pub(super) fn token(&self, id: u32, count: usize, vocabulary: &Vocabulary) -> TokenLogprob {
        let top =
            |id: u32| TopLogprob { token: vocabulary.piece(id), id, logprob: self.logprob(id) };
        let best = self.best(count).into_iter().map(top).collect();
        TokenLogprob { token: vocabulary.piece(id), id, logprob: Some(self.logprob(id)), top: best }
    }

    /// The most likely tokens, of equal ones the lower numbers first.
    fn best(&self, count: usize) -> Vec<u32> {
        let count = count.min(self.logits.len());
        let mut ids: Vec<u32> = (0..self.logits.len() as u32).collect();
        let order = |a: &u32, b: &u32| {
            let logit = |id: &u32| self.logits[*id as usize];
            logit(b).total_cmp(&logit(a)).then(a.cmp(b))
        };
        if count == 0 {
            return Vec::new();
        }
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
        ids.sort_unstable_by(order);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_sum_to_one_and_the_best_come_first() {
        let logits = [1.0, 3.0, 3.0, f32::NEG_INFINITY, 200.0 - 197.5];
        let row = Likelihood::of(&logits);
        let sum: f64 = (0..5).map(|id| f64::from(row.logprob(id)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(row.best(3), [1, 2, 4]);
        assert_eq!((row.best(0), row.best(99).len()), (vec![], 5));
        assert_eq!((row.logprob(3), row.logprob(77)), (f32::MIN, f32::MIN));
    }
}
