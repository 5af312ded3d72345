//! Choosing the next token: greedily, or by a seeded generator among the likely ones.

use std::{
    cmp::Ordering,
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::AnswerError;

/// How a token is chosen. The steps come in this order: penalty, temperature, `top_k`, `top_p`, `min_p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub penalty: f32,
}

impl Choice {
    /// The same, if every value is in its range.
    pub(super) fn checked(self) -> Result<Choice, AnswerError> {
        let rules = [
            (
                "temperature",
                self.temperature,
                (0.0..=100.0).contains(&self.temperature),
                "0 to 100",
            ),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, up to 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repetition_penalty",
                self.penalty,
                self.penalty > 0.0 && self.penalty <= 100.0,
                "above 0, up to 100",
            ),
        ];
        match rules.iter().find(|it| !it.2) {
            Some((name, value, _, range)) => {
                Err(AnswerError::Request(format!("{name} is {value}, and must be {range}")))
            }
            None => Ok(self),
        }
    }
}

/// Chooses tokens one after the other; equal seeds choose equally, on every platform.
pub(super) struct Sampler {
    choice: Choice,
    random: ChaCha8Rng,
    /// Tokens that were there already.
    seen: HashSet<u32>,
}

impl Sampler {
    pub(super) fn new(choice: Choice, seed: Option<u64>) -> Sampler {
        // Without a seed another one each time: the standard library's hasher is seeded so.
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Sampler { choice, random: ChaCha8Rng::from_seed(bytes), seen: HashSet::new() }
    }

    /// A token that the penalty is for from now on.
    pub(super) fn saw(&mut self, id: u32) {
        self.seen.insert(id);
    }

    /// The next token by these logits.
    ///
    /// # Errors
    /// E629 if one of them is no number, or none is above minus infinity.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<u32, AnswerError> {
        if logits.iter().any(|it| it.is_nan() || *it == f32::INFINITY) {
            return Err(AnswerError::NotFinite);
        }
        let penalized = self.penalized(logits);
        let best = greedy(&penalized).ok_or(AnswerError::NotFinite)?;
        if self.choice.temperature == 0.0 || self.choice.top_k == 1 {
            return Ok(best);
        }
        let top = penalized[best as usize];
        let scale = f64::from(self.choice.temperature);
        let weight = |it: f32| (f64::from(it - top) / scale).exp();
        let list: Vec<(u32, f64)> = (0..).zip(penalized.iter().map(|it| weight(*it))).collect();
        Ok(pick(&self.choice.likely(list), self.uniform()).unwrap_or(best))
    }

    fn penalized(&self, logits: &[f32]) -> Vec<f32> {
        let penalty = self.choice.penalty;
        let mut logits = logits.to_vec();
        for id in self.seen.iter().filter(|_| penalty != 1.0) {
            let Some(logit) = logits.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        logits
    }

    /// From 0 to 1, never 1.
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Choice {
    /// The tokens that may be chosen; weights are relative to the most likely one's.
    fn likely(&self, mut list: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
        let limits = self.top_k > 0 && self.top_k < list.len();
        if limits {
            list.select_nth_unstable_by(self.top_k - 1, likelier);
            list.truncate(self.top_k);
        }
        if limits || self.top_p < 1.0 {
            list.sort_unstable_by(likelier);
        }
        if self.top_p < 1.0 {
            list.truncate(nucleus(&list, f64::from(self.top_p)));
        }
        // Their sum divides all alike, so that shares of the most likely one stay.
        list.retain(|it| it.1 >= f64::from(self.min_p));
        list
    }
}

/// The more likely token first, of equal ones the lower number.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// How many of the most likely tokens have this probability together; one at least.
fn nucleus(list: &[(u32, f64)], share: f64) -> usize {
    let sum: f64 = list.iter().map(|it| it.1).sum();
    let mut reached = 0.0;
    let enough = |it: &(u32, f64)| {
        reached += it.1;
        reached >= share * sum
    };
    list.iter().position(enough).map_or(list.len(), |it| it + 1)
}

/// The token at this place of all weights in a row.
fn pick(list: &[(u32, f64)], place: f64) -> Option<u32> {
    let sum: f64 = list.iter().map(|it| it.1).sum();
    let mut reached = 0.0;
    let here = |it: &&(u32, f64)| {
        reached += it.1;
        reached > place * sum
    };
    list.iter().find(here).map(|it| it.0)
}

/// The most likely token, of equal ones the lowest number.
pub(super) fn greedy(logits: &[f32]) -> Option<u32> {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let at = logits.iter().position(|it| *it == best).filter(|_| best > f32::NEG_INFINITY)?;
    u32::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const ALL: Choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalty: 1.0 };

    /// ChaCha with 8 rounds, the seed in the first 8 bytes of its key: by a few lines of Python.
    const GOLDEN: [u32; 4] = [348, 285, 493, 367];

    fn chosen(choice: Choice, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(choice, Some(seed));
        (0..count).map(|_| sampler.choose(logits).unwrap()).collect()
    }

    fn choices() -> impl Strategy<Value = Choice> {
        (0.1f32..3.0, 0usize..9, 0.05f32..1.0, 0.0f32..1.0, 0.5f32..2.0).prop_map(
            |(temperature, top_k, top_p, min_p, penalty)| Choice {
                temperature,
                top_k,
                top_p,
                min_p,
                penalty,
            },
        )
    }

    proptest! {
        #[test]
        fn equal_seeds_choose_equally_and_only_likely_tokens(
            choice in choices(), seed: u64, logits in vec(-9f32..9.0, 1..40),
        ) {
            let tokens = chosen(choice, seed, &logits, 8);
            prop_assert_eq!(&tokens, &chosen(choice, seed, &logits, 8));
            let mut sorted: Vec<f32> = logits.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let worst = sorted[if choice.top_k == 0 { logits.len() } else { choice.top_k.min(logits.len()) } - 1];
            for id in tokens {
                let own = logits[id as usize];
                prop_assert!(own >= worst);
                let share = (f64::from(own - sorted[0]) / f64::from(choice.temperature)).exp();
                prop_assert!(share >= f64::from(choice.min_p));
            }
        }

        #[test]
        fn without_temperature_the_most_likely_token_comes(
            seed: u64, logits in vec(-3i8..3, 1..40), choice in choices(),
        ) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            let first = logits.iter().position(|it| *it == best).unwrap() as u32;
            let greedy = Choice { temperature: 0.0, ..choice };
            prop_assert_eq!(chosen(greedy, seed, &logits, 1), [first]);
            let one = Choice { top_k: 1, ..choice };
            prop_assert_eq!(chosen(one, seed, &logits, 1), [first]);
        }

        #[test]
        fn a_nucleus_is_the_smallest_that_suffices(weights in vec(1u32..100, 1..20), share in 0.01f64..1.0) {
            let mut list: Vec<(u32, f64)> = (0..).zip(weights.iter().map(|it| f64::from(*it))).collect();
            list.sort_by(likelier);
            let sum: f64 = list.iter().map(|it| it.1).sum();
            let count = nucleus(&list, share);
            let of = |count: usize| list[..count].iter().map(|it| it.1).sum::<f64>();
            prop_assert!(of(count) >= share * sum && of(count - 1) < share * sum);
        }
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        let logits = [3f32.ln(), 1f32.ln(), f32::NEG_INFINITY];
        let tokens = chosen(ALL, 1, &logits, 4000);
        let first = tokens.iter().filter(|it| **it == 0).count();
        assert!((2880..3120).contains(&first), "{first}");
        assert!(tokens.iter().all(|it| *it < 2));
        // A golden row: the generator may never change.
        let flat = [0f32; 1000];
        assert_eq!(chosen(ALL, 42, &flat, 4), GOLDEN);
        assert_ne!(chosen(ALL, 42, &flat, 4), chosen(ALL, 43, &flat, 4));
    }

    #[test]
    fn what_was_there_is_less_likely() {
        let choice = Choice { temperature: 0.0, penalty: 2.0, ..ALL };
        let mut sampler = Sampler::new(choice, None);
        sampler.saw(1);
        assert_eq!(sampler.choose(&[1.0, 1.5, 0.5]).unwrap(), 0);
        assert_eq!(sampler.choose(&[-3.0, -1.0, -4.0]).unwrap(), 1);
        assert_eq!(sampler.choose(&[-1.9, -1.0, -4.0]).unwrap(), 0);
    }

    #[test]
    fn what_is_no_likelihood_is_an_error() {
        for logits in [&[f32::NAN, 1.0][..], &[f32::NEG_INFINITY], &[], &[f32::INFINITY]] {
            let mut sampler = Sampler::new(ALL, Some(0));
            assert!(matches!(sampler.choose(logits), Err(AnswerError::NotFinite)));
        }
        for (choice, name) in [
            (Choice { temperature: -1.0, ..ALL }, "temperature"),
            (Choice { temperature: f32::NAN, ..ALL }, "temperature"),
            (Choice { top_p: 0.0, ..ALL }, "top_p"),
            (Choice { min_p: 1.5, ..ALL }, "min_p"),
            (Choice { penalty: 0.0, ..ALL }, "repetition_penalty"),
        ] {
            let error = choice.checked().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
