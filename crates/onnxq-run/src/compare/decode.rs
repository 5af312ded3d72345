//! Both models continue the same texts token by token, each with its own cache.

use pulp::Arch;

use super::{
    cache::{Cache, Text},
    metrics::{Errors, Token},
    tokens::Tokens,
};
use crate::compare::models::CompareError;
use crate::{
    data::{Batch, DataError},
    engine::Session,
};
use onnxq_ir::ctx::Ctx;
use onnxq_report::{
    figures::{CacheKl, Decode, OutputMetrics},
    summary::{Summary, finite},
};

/// Steps take long: each reads all weights for one token.
const SAMPLES: usize = 8;
const PROMPT: usize = 128;
const STEPS: usize = 64;

/// `None` if one of the models has no cache of a known form, or no text is long enough.
pub fn decode(
    reference: &mut dyn Session,
    candidate: &mut dyn Session,
    batches: &mut dyn Iterator<Item = Result<Batch, DataError>>,
    ctx: &Ctx,
) -> Result<Option<Decode>, CompareError> {
    let caches = (Cache::of(reference), Cache::of(candidate));
    let (Some(of_reference), Some(of_candidate)) = caches else { return Ok(None) };
    let mut both = Both {
        reference: Model { session: reference, cache: of_reference, name: "reference" },
        candidate: Model { session: candidate, cache: of_candidate, name: "candidate" },
        sums: Sums::default(),
    };
    ctx.progress.start("decode", SAMPLES as u64);
    'all: for batch in batches {
        let batch = batch?;
        let count = batch.get("input_ids").map_or(0, |it| it.shape[0]);
        for text in (0..count).filter_map(|at| Text::of(&batch, at)) {
            if both.sums.samples == SAMPLES {
                break 'all;
            }
            both.sample(&batch, &text.ids)?;
            ctx.progress.step(1);
        }
    }
    let sums = both.sums;
    ctx.progress.done(&format!("{} samples of up to {} steps", sums.samples, sums.steps));
    Ok((sums.samples > 0).then(|| sums.finish()))
}

struct Model<'a> {
    session: &'a mut dyn Session,
    cache: Cache,
    name: &'static str,
}

struct Both<'a> {
    reference: Model<'a>,
    candidate: Model<'a>,
    sums: Sums,
}

#[derive(Default)]
struct Sums {
    samples: usize,
    prompt: usize,
    steps: usize,
    tokens: Tokens,
    common: Vec<f32>,
    /// KL of the cache alone, of both models, and how many steps it is of.
    cache: (f64, f64, usize),
}

impl Both<'_> {
    fn sample(&mut self, batch: &Batch, ids: &[i64]) -> Result<(), CompareError> {
        let prompt = (ids.len() / 2).min(PROMPT);
        // The last token has no successor to be judged by, but is a step all the same.
        let steps = (ids.len() - prompt).min(STEPS);
        if prompt == 0 || steps == 0 {
            return Ok(());
        }
        let text = &ids[..prompt + steps];
        let reference = self.reference.steps(batch, text, prompt)?;
        let candidate = self.candidate.steps(batch, text, prompt)?;
        self.compare(text, prompt, &reference, &candidate);
        let common = self.common_prefix(batch, &text[..prompt], steps)?;
        let sums = &mut self.sums;
        sums.common.push(common as f32);
        sums.samples += 1;
        (sums.prompt, sums.steps) = (sums.prompt.max(prompt), sums.steps.max(steps));
        Ok(())
    }

    fn compare(&mut self, text: &[i64], prompt: usize, reference: &Ran, candidate: &Ran) {
        let (sums, arch) = (&mut self.sums, Arch::new());
        sums.tokens.next_sample();
        for (step, (r, c)) in reference.steps.iter().zip(&candidate.steps).enumerate() {
            let [whole_r, whole_c] =
                [&reference.whole, &candidate.whole].map(|it| &it[prompt + step]);
            let rows = [r, c, whole_r, whole_c];
            if rows.iter().any(|row| row.iter().any(|it| !it.is_finite())) {
                continue;
            }
            let next = text.get(prompt + step + 1).and_then(|it| usize::try_from(*it).ok());
            let token = Token::of(arch, r, c, next);
            sums.tokens.add(&token);
            sums.tokens.places.add(step, Some(&token), &Errors::of(arch, r, c));
            sums.cache.0 += Token::of(arch, whole_r, r, None).kl;
            sums.cache.1 += Token::of(arch, whole_c, c, None).kl;
            sums.cache.2 += 1;
        }
    }

    /// Tokens that both models would say alike, each going on from its own.
    fn common_prefix(
        &mut self,
        batch: &Batch,
        prompt: &[i64],
        steps: usize,
    ) -> Result<usize, CompareError> {
        let (a, b) = (&mut self.reference, &mut self.candidate);
        let mut past =
            (a.cache.begin(a.session, a.name, batch)?, b.cache.begin(b.session, b.name, batch)?);
        let mut ids = prompt.to_vec();
        for said in 0..steps {
            let next = (top(&past.0.feed(a.session, &ids)?), top(&past.1.feed(b.session, &ids)?));
            match next {
                (Some(a), Some(b)) if a == b => ids = vec![a],
                _ => return Ok(said),
            }
        }
        Ok(steps)
    }
}

/// Logits of the steps after the prompt, and of all tokens at once.
struct Ran {
    steps: Vec<Vec<f32>>,
    whole: Vec<Vec<f32>>,
}

impl Model<'_> {
    fn steps(&mut self, batch: &Batch, text: &[i64], prompt: usize) -> Result<Ran, CompareError> {
        let mut past = self.cache.begin(self.session, self.name, batch)?;
        let whole = past.feed(self.session, text)?;
        let mut past = self.cache.begin(self.session, self.name, batch)?;
        past.feed(self.session, &text[..prompt])?;
        let mut steps = Vec::new();
        for id in &text[prompt..] {
            steps.extend(past.feed(self.session, &[*id])?.pop());
        }
        if whole.len() == text.len() && steps.len() == text.len() - prompt {
            return Ok(Ran { steps, whole });
        }
        let (reference, candidate) = (text.len().to_string(), whole.len().to_string());
        Err(CompareError::Shape { output: "logits".into(), reference, candidate })
    }
}

/// The most likely token after the last one.
fn top(logits: &[Vec<f32>]) -> Option<i64> {
    let row = logits.last()?;
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter().position(|it| *it == best).map(|it| it as i64)
}

impl Sums {
    fn finish(self) -> Decode {
        let mut all = OutputMetrics::default();
        let by_step = self.tokens.places.bins();
        self.tokens.finish(&mut all);
        let (reference, candidate, count) = self.cache;
        let mean = |sum: f64| finite(sum / count as f64);
        Decode {
            samples: self.samples,
            prompt: self.prompt,
            steps: self.steps,
            kl: all.kl,
            top1: all.top1,
            perplexity: all.perplexity,
            by_step,
            common_prefix: Summary::of(&self.common),
            cache_kl: Some(CacheKl { reference: mean(reference), candidate: mean(candidate) }),
        }
    }
}
