//! The figures of one output, batch by batch.

use rayon::prelude::*;

use super::{
    metrics::Errors,
    parts::Parts,
    picture::Picture,
    pictures::pictures,
    splits::Split,
    tokens::{Tokens, WORST},
    vectors::Vectors,
    view::{Kind, Row, View},
};
use onnxq_ir::tensor::Tensor;
use onnxq_report::{
    figures::{NonFinite, OutputMetrics, Role, SampleError},
    pictures::Pictures,
    summary::{Summary, finite},
};

/// What the inputs of a batch say about its outputs.
#[derive(Default)]
pub(super) struct Context {
    pub batch: usize,
    /// `input_ids` and its shape.
    pub ids: Option<(Vec<i64>, [usize; 2])>,
    /// `attention_mask` of the same shape: padding is no output.
    pub mask: Option<Vec<bool>>,
    /// The first input with its name, if it is an image.
    pub image: Option<(String, Tensor)>,
}

#[derive(Default)]
pub(super) struct Accumulator {
    role: Role,
    samples: usize,
    errors: Errors,
    cosine: Vec<f32>,
    pooled: Vec<f32>,
    vectors: Vectors,
    picture: Picture,
    /// Of the worst sample so far.
    pictures: Option<Pictures>,
    wants_pictures: bool,
    tokens: Tokens,
    worst: Vec<SampleError>,
    nonfinite: NonFinite,
    discrete: Option<(usize, usize)>,
    parts: Parts,
}

impl Accumulator {
    pub(super) fn new(role: Role) -> Accumulator {
        Accumulator { role, ..Accumulator::default() }
    }

    /// For an output of that shape, which may be joined of several quantities.
    pub(super) fn with_parts(role: Role, shape: &[usize], splits: &[Split]) -> Accumulator {
        Accumulator { parts: Parts::new(role, shape, splits), ..Accumulator::new(role) }
    }

    /// Keeps small pictures of the worst sample, if it is an image.
    pub(super) fn with_pictures(self, wanted: bool) -> Accumulator {
        Accumulator { wants_pictures: wanted && self.role == Role::Image, ..self }
    }

    /// One batch of a float output; both slices have the elements of `shape`.
    pub(super) fn add(
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
        self.parts.add(shape, reference, candidate, samples);
        let view = View::new(shape, reference, candidate, context, self.role);
        let rows: Vec<Row> = (0..view.count).into_par_iter().map(|it| view.row(it)).collect();
        let per_sample = rows.len() / samples;
        for (at, sample) in rows.chunks(per_sample).enumerate() {
            let is_worst = self.add_sample(&view, first + at, at * per_sample, sample);
            if is_worst && self.wants_pictures {
                let size = reference.len() / samples;
                let range = at * size..(at + 1) * size;
                let both = (&reference[range.clone()], &candidate[range]);
                let is_one = shape[0] == samples;
                let pictures = || pictures(shape, both, context, (at, first + at));
                self.pictures = is_one.then(pictures).flatten();
            }
        }
    }

    /// One batch of an output whose elements are equal or not.
    pub(super) fn add_discrete(&mut self, samples: usize, equal: usize, elements: usize) {
        self.samples += samples;
        let (all_equal, all) = self.discrete.get_or_insert_default();
        *all_equal += equal;
        *all += elements;
    }

    /// The figures of the output, and those of its parts.
    pub(super) fn finish_with_parts(
        mut self,
        name: &str,
    ) -> (OutputMetrics, Vec<(String, OutputMetrics)>) {
        let parts = std::mem::take(&mut self.parts).finish(name);
        (self.finish(), parts)
    }

    pub(super) fn finish(self) -> OutputMetrics {
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
            pictures: self.pictures,
            by_position: self.tokens.places.bins(),
            ..base
        };
        self.tokens.finish(&mut it);
        it
    }

    /// The rows of one sample, the first of which is row `start` of the batch. Whether it is the worst so
    /// far.
    fn add_sample(&mut self, view: &View, sample: usize, start: usize, rows: &[Row]) -> bool {
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
        let mut is_worst = false;
        if sum.elements > 0 {
            self.cosine.push(sum.cosine() as f32);
            is_worst = self.add_worst(sample, &sum);
            self.errors.add(&sum);
        }
        self.add_vectors(view, start..start + rows.len());
        is_worst
    }

    fn count_non_finite(&mut self, row: &Row) {
        self.nonfinite.reference += row.non_finite.0;
        self.nonfinite.candidate += row.non_finite.1;
        if matches!(row.kind, Kind::Bad) {
            self.nonfinite.rows += 1;
            self.nonfinite.broken_rows += usize::from(row.non_finite.0 == 0);
        }
    }

    /// Of equals the first sample is the worst.
    fn add_worst(&mut self, sample: usize, sum: &Errors) -> bool {
        if sum.error_square == 0.0 {
            return false;
        }
        let (sqnr_db, cosine) = (finite(sum.sqnr_db()), finite(sum.cosine()));
        let noise = |it: &SampleError| it.sqnr_db.unwrap_or(f64::NEG_INFINITY);
        let own = SampleError { sample, cosine, sqnr_db, ..SampleError::default() };
        let at = self.worst.partition_point(|it| noise(it) <= noise(&own));
        self.worst.insert(at, own);
        self.worst.truncate(WORST);
        at == 0
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
        Context { batch: shape[0], ids: Some((ids.to_vec(), shape)), mask, image: None }
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
