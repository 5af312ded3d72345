//! The figures of one output, batch by batch.

use pulp::Arch;
use rayon::prelude::*;

use super::{
    metrics::{Errors, Token, count_non_finite},
    picture::Picture,
    tokens::{CONTEXT, Tokens, WORST},
    vectors::Vectors,
};
use onnxq_report::{
    figures::{NonFinite, OutputMetrics, Role, SampleError, TokenError},
    summary::{Summary, finite},
};

/// What the inputs of a batch say about its outputs.
#[derive(Default)]
pub struct Context {
    pub batch: usize,
    /// `input_ids` and its shape.
    pub ids: Option<(Vec<i64>, [usize; 2])>,
    /// `attention_mask` of the same shape: padding is no output.
    pub mask: Option<Vec<bool>>,
    /// The first input is an image.
    pub is_image: bool,
}

#[derive(Default)]
pub struct Accumulator {
    role: Role,
    samples: usize,
    errors: Errors,
    cosine: Vec<f32>,
    pooled: Vec<f32>,
    vectors: Vectors,
    picture: Picture,
    tokens: Tokens,
    worst: Vec<SampleError>,
    nonfinite: NonFinite,
    discrete: Option<(usize, usize)>,
}

impl Accumulator {
    pub fn new(role: Role) -> Accumulator {
        Accumulator { role, ..Accumulator::default() }
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
        let first = self.samples;
        self.samples += samples;
        if reference.is_empty() || samples == 0 {
            return;
        }
        let view = View::new(shape, reference, candidate, context, self.role);
        let rows: Vec<Row> = (0..view.count).into_par_iter().map(|it| view.row(it)).collect();
        let per_sample = rows.len() / samples;
        for (at, sample) in rows.chunks(per_sample).enumerate() {
            self.add_sample(&view, first + at, at * per_sample, sample);
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
        let base =
            OutputMetrics { role: self.role, samples: self.samples, ..OutputMetrics::default() };
        if let Some((equal, elements)) = self.discrete {
            let share = finite(equal as f64 / elements as f64);
            return OutputMetrics { elements, exact: equal == elements, equal: share, ..base };
        }
        let mut it = OutputMetrics {
            elements: self.errors.elements,
            exact: self.errors.error_max == 0.0 && self.nonfinite.rows == 0,
            cosine: Summary::of(&self.cosine),
            pooled_cosine: Summary::of(&self.pooled),
            rank_correlation: self.vectors.rank_correlation(),
            sqnr_db: finite(self.errors.sqnr_db()),
            psnr_db: self.picture.psnr_db(),
            iou: self.picture.iou(),
            max_abs: finite(self.errors.error_max).filter(|_| self.errors.elements > 0),
            mean_abs: finite(self.errors.mean_abs()),
            nonfinite: self.nonfinite,
            worst_samples: self.worst,
            by_position: self.tokens.places.bins(),
            ..base
        };
        self.tokens.finish(&mut it);
        it
    }

    /// The rows of one sample, the first of which is row `start` of the batch.
    fn add_sample(&mut self, view: &View, sample: usize, start: usize, rows: &[Row]) {
        let mut sum = Errors::default();
        self.tokens.next_sample();
        for (position, row) in rows.iter().enumerate() {
            self.count_non_finite(row);
            if !matches!(row.kind, Kind::Good) {
                continue;
            }
            sum.add(&row.errors);
            if view.is_tokens {
                self.tokens.places.add(position, row.token.as_ref(), &row.errors);
            }
            if self.role == Role::Image {
                let (reference, candidate) = view.slices(start + position);
                self.picture.add(reference, candidate);
            }
            let Some(token) = &row.token else { continue };
            self.tokens.add(token);
            if self.tokens.is_bad(token.kl) {
                self.tokens.add_worst(view.token(start + position, sample, position, token));
            }
        }
        if sum.elements > 0 {
            self.cosine.push(sum.cosine() as f32);
            self.add_worst(sample, &sum);
            self.errors.add(&sum);
        }
        self.add_vectors(view, start..start + rows.len());
    }

    fn count_non_finite(&mut self, row: &Row) {
        self.nonfinite.reference += row.non_finite.0;
        self.nonfinite.candidate += row.non_finite.1;
        if matches!(row.kind, Kind::Bad) {
            self.nonfinite.rows += 1;
            self.nonfinite.broken_rows += usize::from(row.non_finite.0 == 0);
        }
    }

    fn add_worst(&mut self, sample: usize, sum: &Errors) {
        if sum.error_square == 0.0 {
            return;
        }
        let (sqnr_db, cosine) = (finite(sum.sqnr_db()), finite(sum.cosine()));
        let noise = |it: &SampleError| it.sqnr_db.unwrap_or(f64::NEG_INFINITY);
        let own = SampleError { sample, file: None, cosine, sqnr_db };
        let at = self.worst.partition_point(|it| noise(it) <= noise(&own));
        self.worst.insert(at, own);
        self.worst.truncate(WORST);
    }

    /// A vector for the sample: its own, or the mean over its tokens.
    fn add_vectors(&mut self, view: &View, rows: std::ops::Range<usize>) {
        let is_pooled = view.is_tokens && self.role != Role::Logits;
        if !is_pooled && self.role != Role::Embedding {
            return;
        }
        let good = rows.filter(|it| matches!(view.row_kind(*it), Kind::Good));
        let Some((reference, candidate)) = view.mean(good) else { return };
        if is_pooled {
            self.pooled.push(cosine(&reference, &candidate));
        }
        self.vectors.add(&reference, &candidate);
    }
}

/// Both outputs of a batch as rows: the last axis, or single elements below rank 2.
struct View<'a> {
    arch: Arch,
    count: usize,
    width: usize,
    reference: &'a [f32],
    candidate: &'a [f32],
    context: &'a Context,
    /// `[batch, sequence, …]` like `input_ids`.
    is_tokens: bool,
    role: Role,
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
        role: Role,
    ) -> View<'a> {
        let width = if shape.len() < 2 { 1 } else { shape[shape.len() - 1] };
        let ids = context.ids.as_ref().map(|(_, shape)| shape);
        let is_tokens = shape.len() == 3 && ids.is_some_and(|it| it[..] == shape[..2]);
        let (arch, count) = (Arch::new(), reference.len() / width);
        View { arch, count, width, reference, candidate, context, is_tokens, role }
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
                let errors = Errors::of(self.arch, reference, candidate);
                Row { errors, token: self.distributions(at), ..empty }
            }
        }
    }

    /// What a row says as a distribution, if it is one.
    fn distributions(&self, at: usize) -> Option<Token> {
        let (reference, candidate) = self.slices(at);
        match self.role {
            Role::Logits | Role::Classes => {
                Some(Token::of(self.arch, reference, candidate, self.next(at)))
            }
            Role::Probabilities => {
                // A probability of nothing would make the divergence infinite.
                let logs = |row: &[f32]| row.iter().map(|it| it.max(1e-12).ln()).collect();
                let (reference, candidate): (Vec<f32>, Vec<f32>) =
                    (logs(reference), logs(candidate));
                Some(Token::of(self.arch, &reference, &candidate, None))
            }
            _ => None,
        }
    }

    fn row_kind(&self, at: usize) -> Kind {
        let (reference, candidate) = self.slices(at);
        if !self.is_real(at) {
            Kind::Padding
        } else if is_finite(reference) && is_finite(candidate) {
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

    /// A row that is among the worst, with what came before it.
    fn token(&self, at: usize, sample: usize, position: usize, token: &Token) -> TokenError {
        let ids = self.context.ids.as_ref().filter(|_| self.is_tokens);
        let before = ids.map(|(ids, _)| &ids[at - position.min(CONTEXT - 1)..=at]);
        TokenError {
            sample,
            position,
            kl: token.kl,
            reference: token.top.0 as i64,
            reference_probability: token.log_top.0.exp(),
            candidate: token.top.1 as i64,
            candidate_probability: token.log_top.1.exp(),
            next: self.next(at).map(|it| it as i64),
            context_ids: before.unwrap_or_default().to_vec(),
            ..TokenError::default()
        }
    }

    /// The means of rows of both models; `None` of no rows.
    fn mean(&self, rows: impl Iterator<Item = usize>) -> Option<(Vec<f64>, Vec<f64>)> {
        let mut sums = (vec![0.0f64; self.width], vec![0.0f64; self.width]);
        let mut count = 0.0;
        for row in rows {
            let (reference, candidate) = self.slices(row);
            sums.0.iter_mut().zip(reference).for_each(|(sum, it)| *sum += f64::from(*it));
            sums.1.iter_mut().zip(candidate).for_each(|(sum, it)| *sum += f64::from(*it));
            count += 1.0;
        }
        sums.0.iter_mut().chain(&mut sums.1).for_each(|it| *it /= count);
        (count > 0.0).then_some(sums)
    }
}

/// A sum of zeros is zero, and of anything that is not finite it is not: no branch per element.
fn is_finite(row: &[f32]) -> bool {
    let mut lanes = [0.0f32; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, it)| *lane += it * 0.0);
    }
    lanes.iter().chain(chunks.remainder()).map(|it| it * 0.0).sum::<f32>() == 0.0
}

fn cosine(reference: &[f64], candidate: &[f64]) -> f32 {
    let mut total = Errors { elements: reference.len(), ..Errors::default() };
    for (r, c) in reference.iter().zip(candidate) {
        total.reference_square += r * r;
        total.candidate_square += c * c;
        total.product += r * c;
    }
    total.cosine() as f32
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn tokens(ids: &[i64], shape: [usize; 2], mask: Option<Vec<bool>>) -> Context {
        Context { batch: shape[0], ids: Some((ids.to_vec(), shape)), mask, is_image: false }
    }

    fn logits(reference: &[f32], candidate: &[f32], context: &Context) -> OutputMetrics {
        let mut it = Accumulator::new(Role::Logits);
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
        let mut it = Accumulator::new(Role::Hidden);
        // The errors of the two tokens cancel out in the mean.
        it.add(&[1, 2, 2], &[1.0, 0.0, 1.0, 0.0], &[1.0, 0.5, 1.0, -0.5], &context);
        let got = it.finish();
        assert_relative_eq!(got.pooled_cosine.unwrap().min.unwrap(), 1.0, epsilon = 1e-6);
        assert!(got.cosine.unwrap().min.unwrap() < 0.95 && got.kl.is_none());
    }

    #[test]
    fn an_empty_output_is_exact() {
        let mut it = Accumulator::new(Role::Hidden);
        it.add(&[2, 0], &[], &[], &Context { batch: 2, ..Context::default() });
        let got = it.finish();
        assert!(got.exact && got.cosine.is_none() && got.max_abs.is_none());
    }
}
