//! The figures of one output, batch by batch.

use rayon::prelude::*;

use super::{
    figures::{NonFinite, OutputMetrics, Perplexity},
    metrics::{Errors, Summary, Token, count_non_finite, finite},
};

/// What the inputs of a batch say about its outputs.
#[derive(Default)]
pub struct Context {
    pub batch: usize,
    /// `input_ids` and its shape.
    pub ids: Option<(Vec<i64>, [usize; 2])>,
    /// `attention_mask` of the same shape: padding is no output.
    pub mask: Option<Vec<bool>>,
}

#[derive(Default)]
pub struct Accumulator {
    is_logits: bool,
    samples: usize,
    errors: Errors,
    cosine: Vec<f32>,
    pooled: Vec<f32>,
    kl: Vec<f32>,
    same_top: usize,
    surprise: (f64, f64, usize),
    nonfinite: NonFinite,
    discrete: Option<(usize, usize)>,
}

impl Accumulator {
    pub fn new(is_logits: bool) -> Accumulator {
        Accumulator { is_logits, ..Accumulator::default() }
    }

    /// One batch of a float output; both slices have the elements of `shape`.
    pub fn add(
        &mut self,
        shape: &[usize],
        reference: &[f32],
        candidate: &[f32],
        context: &Context,
    ) {
        let samples = if shape.first() == Some(&context.batch) { context.batch } else { 1 };
        self.samples += samples;
        if reference.is_empty() || samples == 0 {
            return;
        }
        let view = View::new(shape, reference, candidate, context, self.is_logits);
        let rows: Vec<Row> = (0..view.count).into_par_iter().map(|it| view.row(it)).collect();
        for sample in rows.chunks(rows.len() / samples) {
            self.add_sample(sample);
        }
        if view.is_tokens && !self.is_logits {
            let per_sample = rows.len() / samples;
            self.pooled.extend((0..samples).filter_map(|sample| {
                let rows = sample * per_sample..(sample + 1) * per_sample;
                view.pooled_cosine(rows.filter(|it| matches!(view.row_kind(*it), Kind::Good)))
            }));
        }
    }

    /// One batch of an output whose elements are equal or not.
    pub fn add_discrete(&mut self, samples: usize, equal: usize, elements: usize) {
        self.samples += samples;
        let (all_equal, all) = self.discrete.get_or_insert_default();
        *all_equal += equal;
        *all += elements;
    }

    pub fn finish(self) -> OutputMetrics {
        let base = OutputMetrics { samples: self.samples, ..OutputMetrics::default() };
        if let Some((equal, elements)) = self.discrete {
            let share = finite(equal as f64 / elements as f64);
            return OutputMetrics { elements, exact: equal == elements, equal: share, ..base };
        }
        let tokens = self.kl.len();
        let (reference, candidate, count) = self.surprise;
        let perplexity = |sum: f64| finite((sum / count as f64).exp());
        OutputMetrics {
            elements: self.errors.elements,
            exact: self.errors.error_max == 0.0 && self.nonfinite.rows == 0,
            cosine: Summary::of(&self.cosine),
            pooled_cosine: Summary::of(&self.pooled),
            sqnr_db: finite(self.errors.sqnr_db()),
            max_abs: finite(self.errors.error_max).filter(|_| self.errors.elements > 0),
            mean_abs: finite(self.errors.mean_abs()),
            kl: Summary::of(&self.kl),
            top1: finite(self.same_top as f64 / tokens as f64),
            perplexity: (count > 0).then(|| Perplexity {
                reference: perplexity(reference),
                candidate: perplexity(candidate),
                ratio: perplexity(candidate - reference),
                ..Perplexity::default()
            }),
            nonfinite: self.nonfinite,
            ..base
        }
    }

    fn add_sample(&mut self, rows: &[Row]) {
        let mut sum = Errors::default();
        for row in rows {
            self.nonfinite.reference += row.non_finite.0;
            self.nonfinite.candidate += row.non_finite.1;
            match row.kind {
                Kind::Padding => {}
                Kind::Bad => {
                    self.nonfinite.rows += 1;
                    self.nonfinite.broken_rows += usize::from(row.non_finite.0 == 0);
                }
                Kind::Good => sum.add(&row.errors),
            }
            let Some(token) = row.token else { continue };
            self.kl.push(token.kl as f32);
            self.same_top += usize::from(token.same_top);
            if let Some((reference, candidate)) = token.surprise {
                self.surprise.0 += reference;
                self.surprise.1 += candidate;
                self.surprise.2 += 1;
            }
        }
        if sum.elements > 0 {
            self.cosine.push(sum.cosine() as f32);
            self.errors.add(&sum);
        }
    }
}

/// Both outputs of a batch as rows: the last axis, or single elements below rank 2.
struct View<'a> {
    count: usize,
    width: usize,
    reference: &'a [f32],
    candidate: &'a [f32],
    context: &'a Context,
    /// `[batch, sequence, …]` like `input_ids`.
    is_tokens: bool,
    is_logits: bool,
}

struct Row {
    kind: Kind,
    non_finite: (usize, usize),
    errors: Errors,
    token: Option<Token>,
}

#[derive(Clone, Copy)]
enum Kind {
    Good,
    Bad,
    Padding,
}

impl<'a> View<'a> {
    fn new(
        shape: &[usize],
        reference: &'a [f32],
        candidate: &'a [f32],
        context: &'a Context,
        is_logits: bool,
    ) -> View<'a> {
        let width = if shape.len() < 2 { 1 } else { shape[shape.len() - 1] };
        let ids = context.ids.as_ref().map(|(_, shape)| shape);
        let is_tokens = shape.len() == 3 && ids.is_some_and(|it| it[..] == shape[..2]);
        let count = reference.len() / width;
        View { count, width, reference, candidate, context, is_tokens, is_logits }
    }

    fn row(&self, at: usize) -> Row {
        let (reference, candidate) = self.slices(at);
        let kind = self.row_kind(at);
        let empty = Row { kind, non_finite: (0, 0), errors: Errors::default(), token: None };
        match kind {
            Kind::Padding => empty,
            Kind::Bad => {
                let non_finite = (count_non_finite(reference), count_non_finite(candidate));
                Row { non_finite, ..empty }
            }
            Kind::Good => {
                let token = self.is_logits.then(|| Token::of(reference, candidate, self.next(at)));
                Row { errors: Errors::of(reference, candidate), token, ..empty }
            }
        }
    }

    fn row_kind(&self, at: usize) -> Kind {
        let (reference, candidate) = self.slices(at);
        if !self.is_real(at) {
            Kind::Padding
        } else if reference.iter().chain(candidate).all(|it| it.is_finite()) {
            Kind::Good
        } else {
            Kind::Bad
        }
    }

    fn slices(&self, at: usize) -> (&'a [f32], &'a [f32]) {
        let range = at * self.width..(at + 1) * self.width;
        (&self.reference[range.clone()], &self.candidate[range])
    }

    fn is_real(&self, at: usize) -> bool {
        !self.is_tokens || self.context.mask.as_ref().is_none_or(|it| it[at])
    }

    /// The token that follows row `at` in its sample.
    fn next(&self, at: usize) -> Option<usize> {
        let (ids, [_, sequence]) = self.context.ids.as_ref().filter(|_| self.is_tokens)?;
        let next = at + 1;
        (!next.is_multiple_of(*sequence) && self.is_real(next))
            .then(|| usize::try_from(ids[next]).ok())?
    }

    fn pooled_cosine(&self, rows: impl Iterator<Item = usize>) -> Option<f32> {
        let mut sums = (vec![0.0f64; self.width], vec![0.0f64; self.width]);
        let mut count = 0;
        for row in rows {
            let (reference, candidate) = self.slices(row);
            sums.0.iter_mut().zip(reference).for_each(|(sum, it)| *sum += f64::from(*it));
            sums.1.iter_mut().zip(candidate).for_each(|(sum, it)| *sum += f64::from(*it));
            count += 1;
        }
        // The mean is the sum but for a factor, which a cosine does not see.
        let mut total = Errors { elements: self.width, ..Errors::default() };
        for (r, c) in sums.0.iter().zip(&sums.1) {
            total.reference_square += r * r;
            total.candidate_square += c * c;
            total.product += r * c;
        }
        (count > 0).then(|| total.cosine() as f32)
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn tokens(ids: &[i64], shape: [usize; 2], mask: Option<Vec<bool>>) -> Context {
        Context { batch: shape[0], ids: Some((ids.to_vec(), shape)), mask }
    }

    fn logits(reference: &[f32], candidate: &[f32], context: &Context) -> OutputMetrics {
        let mut it = Accumulator::new(true);
        let [batch, sequence] = context.ids.as_ref().unwrap().1;
        it.add(&[batch, sequence, 2], reference, candidate, context);
        it.finish()
    }

    #[test]
    fn perplexity_looks_one_token_ahead_within_a_sample() {
        // Two samples of two tokens: only the first token of each has a successor.
        let context = tokens(&[0, 1, 0, 0], [2, 2], None);
        let even = [0.0f32; 8];
        let sure = [0.0, 100.0, 0.0, 0.0, 100.0, 0.0, 0.0, 0.0];
        let got = logits(&even, &sure, &context);
        let perplexity = got.perplexity.unwrap();
        assert_relative_eq!(perplexity.reference.unwrap(), 2.0, epsilon = 1e-9);
        assert_relative_eq!(perplexity.candidate.unwrap(), 1.0, epsilon = 1e-9);
        assert_relative_eq!(perplexity.ratio.unwrap(), 0.5, epsilon = 1e-9);
        assert_eq!((got.top1, got.samples, got.elements), (Some(0.75), 2, 8));
    }

    #[test]
    fn padding_is_no_output() {
        let context = tokens(&[0, 1, 1], [1, 3], Some(vec![true, true, false]));
        let reference = [0.0, 0.0, 0.0, 0.0, f32::NAN, 9.0];
        let got = logits(&reference, &[0.0, 0.0, 0.0, 0.0, 5.0, 1.0], &context);
        assert!(got.exact && got.sqnr_db.is_none());
        assert_eq!((got.elements, got.nonfinite), (4, NonFinite::default()));
        assert_relative_eq!(got.perplexity.unwrap().reference.unwrap(), 2.0, epsilon = 1e-9);
    }

    #[test]
    fn broken_rows_are_counted_and_left_out() {
        let context = tokens(&[0, 1], [1, 2], None);
        let got = logits(&[1.0, 2.0, 1.0, 2.0], &[1.0, f32::NAN, 1.0, 2.0], &context);
        let nonfinite = NonFinite { reference: 0, candidate: 1, rows: 1, broken_rows: 1 };
        assert_eq!((got.nonfinite, got.exact, got.elements), (nonfinite, false, 2));
        assert_eq!(got.kl.unwrap().max, Some(0.0));
        let json = serde_json::to_value(&got).unwrap();
        assert!(json["sqnr_db"].is_null() && json["perplexity"].is_null());
    }

    #[test]
    fn embeddings_are_pooled_before_their_cosine() {
        let context = tokens(&[0, 0], [1, 2], None);
        let mut it = Accumulator::new(false);
        // The errors of the two tokens cancel out in the mean.
        it.add(&[1, 2, 2], &[1.0, 0.0, 1.0, 0.0], &[1.0, 0.5, 1.0, -0.5], &context);
        let got = it.finish();
        assert_relative_eq!(got.pooled_cosine.unwrap().min.unwrap(), 1.0, epsilon = 1e-6);
        assert!(got.cosine.unwrap().min.unwrap() < 0.95 && got.kl.is_none());
    }

    #[test]
    fn an_empty_output_is_exact() {
        let mut it = Accumulator::new(false);
        it.add(&[2, 0], &[], &[], &Context { batch: 2, ..Context::default() });
        let got = it.finish();
        assert!(got.exact && got.cosine.is_none() && got.max_abs.is_none());
    }
}
